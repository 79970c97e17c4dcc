"""What newcomers copy works as it stands."""

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import rl_interp
from rl_interp.app import cli
from rl_interp.core.collect import collect
from rl_interp.core.config import from_plain, to_plain
from rl_interp.core.envs import EnvConfig, env_config, make_labelled, make_vector, registry

TEMPLATES = Path(__file__).parent.parent / "templates"


@pytest.fixture
def template(monkeypatch):
    """`template(name, module)`: the file, imported under the module's name for the length of a test."""

    def load(name, module=None):
        spec = importlib.util.spec_from_file_location(module or f"template_{name}", TEMPLATES / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return load


@pytest.fixture
def corridor(template, monkeypatch):
    monkeypatch.setattr(registry, "FAMILIES", list(registry.FAMILIES))
    module = template("environment")
    module.FAMILIES = registry.FAMILIES
    module.register()
    return env_config("Corridor-v0")


def test_the_agent_keeps_the_contract(template):
    torch.manual_seed(0)
    agent = template("agent").MyAgent(actions=2)
    rl_interp.check_agent(agent, torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8))


def test_the_environment_is_known_by_its_id_and_its_config_survives_a_file(corridor):
    @dataclass(frozen=True)
    class Training:
        env: EnvConfig

    assert from_plain(Training, to_plain(Training(corridor)), "a test").env == corridor


def test_the_environment_is_played_alike_in_both_forms(corridor):
    vector, labelled = make_vector(corridor, 1), make_labelled(corridor)
    obs = vector.reset(seed=5)
    seed = registry._load(".seeds:episode_seed")(5, 0, 0)
    alone, info = labelled.reset(seed=seed)
    np.testing.assert_array_equal(obs[0], alone)
    for action in [1, 0] * 10 if info["labels"]["goal_right"] else [0, 1] * 10:
        vector.send(np.array([action]))
        step = vector.recv()
        alone, reward, terminated, truncated, info = labelled.step(action)
        np.testing.assert_array_equal(step.obs[0], alone)
        assert (step.reward[0], step.done[0]) == (reward, terminated or truncated)
    assert truncated


def test_an_agent_of_ones_own_is_evaluated_and_collected_in_an_environment_of_ones_own(corridor, template, tmp_path):
    agent = template("agent").MyAgent(actions=2)
    played = rl_interp.evaluate(agent, make_vector(corridor, 2), episodes=4, seed=0)
    assert (played.lengths <= corridor.max_steps).all()
    store = collect(agent, corridor, "memory", 50, tmp_path / "store", seed=0, num_envs=2)
    assert set(store.column("controllable")) == {1}


def test_the_command_is_listed_parsed_and_run(template, monkeypatch, capsys):
    template("command", "rl_interp.app.commands.silent_units")
    monkeypatch.setitem(cli.COMMANDS["Layers"], "silent-units", "silent_units:silent_units_command")
    assert cli.main([*["silent-units", "impala-unlock", "--hook", "fc.post", "--steps", "5", "--json"]]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["units"] == 128
    assert 0 <= result["silent"] < 128


def test_the_command_refuses_what_cannot_be(template, monkeypatch, capsys):
    template("command", "rl_interp.app.commands.silent_units")
    monkeypatch.setitem(cli.COMMANDS["Layers"], "silent-units", "silent_units:silent_units_command")
    assert cli.main([*["silent-units", "impala-unlock", "--steps", "0"]]) == 1
    assert "steps" in capsys.readouterr().err
