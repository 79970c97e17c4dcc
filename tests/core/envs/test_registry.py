from dataclasses import dataclass

import numpy as np
import pytest

from rl_interp.core.config import from_plain, to_plain
from rl_interp.core.envs import EnvConfig, env_config, make_labelled, make_vector, registry
from rl_interp.core.errors import RunError, UserError


@dataclass(frozen=True)
class Played:
    """A config with an environment in it, as those of training are."""

    env: EnvConfig


IDS = ["ALE/Pong-v5", "MiniGrid-Empty-5x5-v0", "CrafterReward-v1", "rl_interp/Maze-v0", "rl_interp/Sokoban-v0",
       "rl_interp/Text-ioi", "rl_interp/TwoWays-v0"]  # fmt: skip


@pytest.mark.parametrize("env_id", IDS)
def test_an_id_finds_its_family_which_makes_it_in_both_forms(env_id):
    config = env_config(env_id)
    vector, labelled = make_vector(config, 2), make_labelled(config)
    obs = vector.reset(seed=0)
    vector.close()
    assert obs.shape == (2, *config.observation_shape)
    assert labelled.reset(seed=0)[0].shape == config.observation_shape
    assert vector.action_names == labelled.action_names == config.action_names


def test_every_family_is_tried():
    assert {type(env_config(env_id)) for env_id in IDS} == {family.config for family in registry.FAMILIES}


@pytest.mark.parametrize("env_id", IDS)
def test_a_config_on_disk_says_by_its_id_which_it_is(env_id):
    config = env_config(env_id)
    assert from_plain(Played, to_plain(Played(config)), "config.yaml") == Played(config)


def test_an_unknown_id_on_disk_is_refused_with_its_file():
    with pytest.raises(RunError, match=r"config.yaml: env: unknown environment 'Nothing-v0'; ids begin with ALE/, "):
        from_plain(Played, {"env": {"id": "Nothing-v0"}}, "config.yaml")


@dataclass(frozen=True)
class Corridor(EnvConfig):
    """A family that the suite does not know."""

    id: str = "Corridor"
    action_names = ("back", "forth")
    observation_shape = (1, 1, 5)


def test_a_family_of_its_own_needs_one_line(monkeypatch):
    with pytest.raises(UserError, match="Corridor given, which no family of environments has"):
        make_vector(Corridor(), 2)
    made = f"{__name__}:Made"
    monkeypatch.setattr(registry, "FAMILIES", [*registry.FAMILIES, registry.Family("Corr", Corridor, made, made)])
    vector = make_vector(env_config("Corridor"), 2)
    assert isinstance(vector, Made)
    assert vector.given == (Corridor(), 2, 0)


class Made:
    def __init__(self, *given):
        self.given = given
        self.obs = np.zeros(5)
