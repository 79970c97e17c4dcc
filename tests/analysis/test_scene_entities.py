"""Where entities are, and what an observation is without one, by what the environments themselves show."""

import numpy as np
import pytest

from rl_interp.analysis.entities import survey
from rl_interp.core.envs import AtariConfig, CrafterConfig, MazeConfig, MiniGridConfig, make_labelled
from rl_interp.core.errors import UserError


def at_play(config, steps: int, seed: int = 3):
    env = make_labelled(config)
    looks, rng = survey(env, config), np.random.default_rng(0)
    obs, _ = env.reset(seed=seed)
    for _ in range(steps):
        action = int(rng.integers(len(env.action_names)))
        looks.before_step(action)
        obs, *_ = env.step(action)
    return env, obs, looks.masks(), looks.edited(rng)


@pytest.mark.parametrize(
    ("config", "steps", "there"),
    [
        (MazeConfig(min_side=7, max_side=7), 2, ["mouse", "cheese", "wall"]),
        (MiniGridConfig("MiniGrid-Unlock-v0"), 12, ["wall", "key"]),
        (CrafterConfig(), 40, ["tree"]),
    ],
    ids=["maze", "minigrid", "crafter"],
)
def test_an_edit_changes_what_the_mask_of_its_entity_covers(config, steps, there):
    env, obs, masks, edited = at_play(config, steps)
    assert set(there) <= set(masks)
    assert edited
    for name, without in edited.items():
        changed = without != obs
        assert changed[masks[name]].any(), name
        if name != "mouse":  # which is moved, and not taken away
            assert not changed[~masks[name]].any(), name
    assert all(mask.shape == obs.shape for mask in masks.values())
    again = np.empty_like(obs)
    env.game.observe(again)
    np.testing.assert_array_equal(again, obs, err_msg="looking changes nothing")


def test_an_environment_of_which_nothing_is_known_has_no_entities():
    config = AtariConfig(id="ALE/Pong-v5")
    with pytest.raises(UserError, match="what is where on the screen of ALE/Pong-v5 is not known"):
        survey(make_labelled(config), config)
