"""Every number of every configuration, and of every command, is looked at before any work begins."""

import math
import re
import typing
from dataclasses import fields

import pytest

from rl_interp.agents.cbet import CBETConfig
from rl_interp.agents.dqn import DQNConfig
from rl_interp.agents.dreamerv3 import DreamerV3Config
from rl_interp.agents.impala import IMPALAConfig
from rl_interp.app import cli
from rl_interp.core.envs import AtariConfig, CrafterConfig, MazeConfig
from rl_interp.core.errors import MAX_SEED, UserError, require_numbers
from rl_interp.sae import SAEConfig

CONFIGS = (DQNConfig, IMPALAConfig, DreamerV3Config, CBETConfig, SAEConfig, AtariConfig, CrafterConfig, MazeConfig)


def kinds(hint):
    """Types of a number, an optional one or a tuple of them."""
    return {hint} & {int, float} | {kind for each in typing.get_args(hint) for kind in kinds(each)}


def numbers():
    for config in CONFIGS:
        hints = typing.get_type_hints(config)
        for field in fields(config):
            if found := kinds(hints[field.name]):
                many = typing.get_origin(hints[field.name]) is tuple
                for value in (-1, *([math.nan, -math.inf] if float in found else [])):
                    yield pytest.param(
                        config, field.name, (value,) if many else value, id=f"{config.__name__}-{field.name}={value}"
                    )


@pytest.mark.parametrize(("config", "name", "value"), list(numbers()))
def test_no_number_of_a_configuration_can_be_negative_or_nan(config, name, value):
    with pytest.raises(UserError, match=rf"{name}=\(?{value}.* given"):
        config(**{name: value})


@pytest.mark.parametrize("config", CONFIGS)
def test_what_counts_cannot_be_infinite(config):
    hints = typing.get_type_hints(config)
    for field in fields(config):
        if kinds(hints[field.name]) == {float} and typing.get_origin(hints[field.name]) is not tuple:
            if (config, field.name) == (SAEConfig, "ridge"):  # inf scales all dimensions by one factor
                continue
            with pytest.raises(UserError, match=rf"{field.name}=inf"):
                config(**{field.name: math.inf})


def commands(table):
    for entry in table.values():
        yield from [cli.load(entry)] if isinstance(entry, str) else commands(entry)


def test_every_number_among_the_commands_flags_has_a_bound():
    value_of_an_activation = {"value"}
    for command in commands(cli.COMMANDS):
        hints = typing.get_type_hints(command, include_extras=True)
        plain = typing.get_type_hints(command)
        for name in set(hints) - {"return"} - value_of_an_activation:
            assert bool(kinds(plain[name])) == bool(list(cli.bounds(hints[name]))), (command.__name__, name)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("evaluate some --checkpoint -1", "checkpoint=-1 given"),
        ("train dqn --seed -1", "seed=-1 given; it must be at least 0"),
        (f"train impala --seed {MAX_SEED + 1}", "it must be at least 0 and at most"),
        ("train dreamerv3 --seed -5", "seed=-5 given"),
        ("train dqn --epsilon-steps 0", "epsilon_steps=0 given; it must be at least 1"),
        ("train impala --actors -2", "actors=-2 given"),
        ("evaluate some --epsilon 1.5", r"epsilon=1.5 given; it must lie in \[0, 1\]"),
        ("evaluate some --epsilon nan", "epsilon=nan given"),
        ("collect some --seed -1", "seed=-1 given"),
        ("sae sweep some --ks 0", r"ks=\(0,\) given"),
        ("study cbet --agent-steps 0", "agent_steps=0 given"),
    ],
)
def test_the_sentence_comes_before_anything_is_written(command, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(command.split()) == 1
    assert re.search(sentence, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.iterdir())


def test_what_is_not_given_is_not_wanted():
    require_numbers({"a": None, "b": (1, 2)}, at_least_1=("a", "b", "c"))
    with pytest.raises(UserError, match=r"b=\(1, 0\) given; it must be at least 1"):
        require_numbers({"b": (1, 0)}, at_least_1=("b",))
