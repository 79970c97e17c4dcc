"""The replay of sequences: in order, uniform, on disk, and as large as is said."""

import numpy as np
import pytest

from rl_interp.agents.dreamerv3 import default_config, make_agent
from rl_interp.agents.dreamerv3.replay import SequenceReplay
from rl_interp.core.errors import RunError, UserError


def filled(capacity=40, num_envs=2, slots=30, **kwargs):
    """Slot t of environment e holds the action t % 7, the reward 100·e + t."""
    replay = SequenceReplay(capacity, num_envs, (1, 2, 2), **kwargs)
    for t in range(slots):
        replay.add(
            obs=np.full((num_envs, 1, 2, 2), t, np.uint8), actions=np.full(num_envs, t % 7),
            rewards=100 * np.arange(num_envs) + t, terminated=np.zeros(num_envs, bool), first=np.zeros(num_envs, bool),
        )  # fmt: skip
    return replay


@pytest.mark.parametrize("slots", [15, 20, 47])
def test_sequences_are_consecutive_and_uniform(slots):
    replay = filled(capacity=40, slots=slots)  # 20 slots each: not yet full, just full, and wrapped around
    drawn = replay.sample(4000, 5, np.random.default_rng(0))
    assert (np.diff(drawn["rewards"], axis=0) == 1).all()
    np.testing.assert_array_equal(drawn["obs"][..., 0, 0, 0], drawn["rewards"] % 100)
    np.testing.assert_array_equal(drawn["actions"], drawn["rewards"] % 100 % 7)
    assert drawn["first"][0].all()
    assert not drawn["first"][1:].any()
    starts = np.unique(drawn["rewards"][0], return_counts=True)
    oldest, newest = max(0, slots - 20), slots - 5
    wanted = [100 * env + t for env in (0, 1) for t in range(oldest, newest + 1)]
    np.testing.assert_array_equal(starts[0], wanted)
    expected = 4000 / len(wanted)
    assert np.abs(starts[1] - expected).max() < 5 * expected**0.5


def test_sequences_come_with_the_latent_before_them_which_an_update_renews():
    replay = SequenceReplay(40, 2, (1, 2, 2), latents={"deter": (3, np.float16), "stoch": (4, np.uint8)})
    for t in range(30):  # 20 slots each, wrapped around
        replay.add(
            obs=np.zeros((2, 1, 2, 2), np.uint8), actions=np.full(2, t % 7), rewards=np.full(2, t),
            terminated=np.zeros(2, bool), first=np.full(2, t % 4 == 0),
            deter=np.full((2, 3), t / 32), stoch=np.full((2, 4), t),
        )  # fmt: skip
    rng = np.random.default_rng(0)
    drawn = replay.sample(400, 5, rng)
    slot = drawn["rewards"][0]
    assert set(slot) == set(range(11, 26))  # the oldest slot left is 10, which has none before it
    np.testing.assert_array_equal(drawn["before_deter"], np.repeat(slot[:, None] - 1, 3, 1) / 32)
    np.testing.assert_array_equal(drawn["before_stoch"], np.repeat(slot[:, None] - 1, 4, 1))
    np.testing.assert_array_equal(drawn["before_actions"], (slot - 1) % 7)
    np.testing.assert_array_equal(drawn["first"], drawn["rewards"] % 4 == 0)
    drawn_slots = drawn["rewards"][..., None]
    replay.renew(deter=np.repeat(-drawn_slots / 32, 3, -1), stoch=np.repeat(drawn_slots + 100, 4, -1))
    again = replay.sample(400, 5, rng)
    before = again["rewards"][0] - 1
    renewed = before > 10  # nothing came before slot 11, so that 10 was in no sequence
    np.testing.assert_array_equal(again["before_deter"][:, 0], np.where(renewed, -before, before) / 32)
    np.testing.assert_array_equal(again["before_stoch"][:, 0], np.where(renewed, before + 100, before))


def test_a_replay_that_is_too_short_is_refused():
    with pytest.raises(UserError, match="holds 3 steps of each environment and sequences of 5 were asked for"):
        filled(slots=3).sample(1, 5, np.random.default_rng(0))


def test_a_replay_on_disk_goes_on_where_the_checkpoint_was(tmp_path):
    replay = filled(slots=12, directory=tmp_path)
    state = replay.state()
    for _ in range(5):  # written by a run that was killed before its next checkpoint
        replay.add(
            obs=np.zeros((2, 1, 2, 2), np.uint8), actions=np.zeros(2), rewards=np.full(2, -1.0),
            terminated=np.zeros(2, bool), first=np.zeros(2, bool),
        )  # fmt: skip
    replay.flush()
    again = SequenceReplay(40, 2, (1, 2, 2), directory=tmp_path)
    again.restore(state)
    drawn = again.sample(200, 5, np.random.default_rng(0))
    assert (drawn["rewards"] >= 0).all()
    with pytest.raises(RunError, match="belongs to a run of a different configuration"):
        SequenceReplay(40, 2, (3, 2, 2), directory=tmp_path)


@pytest.mark.parametrize("slots", [15, 20, 47])
def test_no_sequence_leads_into_a_dead_run(tmp_path, slots):
    filled(slots=47, directory=tmp_path).flush()
    replay = filled(slots=slots, directory=tmp_path)
    alone = filled(slots=slots)
    drawn, wanted = (each.sample(4000, 5, np.random.default_rng(0)) for each in (replay, alone))
    for name in wanted:
        np.testing.assert_array_equal(drawn[name], wanted[name])
    assert (replay.tick < 0).sum() == max(0, 20 - slots), "what the dead run wrote belongs to nothing"


@pytest.mark.parametrize("slots", [15, 20])
def test_a_replay_on_disk_can_be_made_longer(tmp_path, slots):
    """Up to when it was full; what was in it stays, and what comes goes on from there."""
    replay = filled(slots=slots, directory=tmp_path)
    state = replay.state()
    replay.flush()
    longer = SequenceReplay(60, 2, (1, 2, 2), directory=tmp_path)
    longer.restore(state)
    for _ in range(3):
        longer.add(**{name: array[0] for name, array in longer.fields.items()})
    assert longer.size == slots + 3
    np.testing.assert_array_equal(longer.fields["obs"][:slots], filled(slots=slots).fields["obs"][:slots])
    np.testing.assert_array_equal(longer.tick[: slots + 3], range(slots + 3))
    longer.sample(100, slots + 3, np.random.default_rng(0))


def test_a_replay_that_has_come_round_can_not(tmp_path):
    replay = filled(slots=27, directory=tmp_path)
    state = replay.state()
    replay.flush()
    with pytest.raises(RunError, match="has wrapped around and can't be made longer"):
        SequenceReplay(60, 2, (1, 2, 2), directory=tmp_path).restore(state)
    again = filled(slots=0, directory=tmp_path)
    again.restore(state)
    np.testing.assert_array_equal(again.fields["obs"], replay.fields["obs"])
    assert not list(tmp_path.glob("*.new"))


def test_a_million_frames_of_crafter_fit_in_13_gb():
    """With the latents that size `tiny` keeps beside them."""
    latents = make_agent(default_config("CrafterReward-v1")).world_model.rssm.packing()
    replay = SequenceReplay(1000, 4, (3, 64, 64), bonus=True, latents=latents)
    arrays = (*replay.fields.values(), *replay.latents.values(), replay.tick)
    assert sum(array.nbytes for array in arrays) < 13e9 / 1000
    assert sum(array.nbytes for array in replay.latents.values()) == 272 * 1000
