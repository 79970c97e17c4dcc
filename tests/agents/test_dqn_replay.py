"""Replay against a plain record of everything that was added."""

import subprocess
from collections import Counter

import numpy as np
import pytest

from rl_interp.agents.dqn.replay import Replay
from rl_interp.core.errors import RunError, UserError

GAMMA = 0.9


class Record:
    """A stream of fake episodes with NEXT_STEP autoreset, fed to a replay and remembered naively.

    Frames encode environment, episode and step in their pixels, so that a stack says where it is from.
    """

    def __init__(self, replay: Replay, lengths: list[list[int]], lives: int = 7):
        self.replay, self.lengths, self.lives = replay, lengths, lives
        n = len(lengths)
        self.episode, self.step = np.zeros(n, int), np.zeros(n, int)
        self.rng = np.random.default_rng(0)
        self.rewards: dict[tuple[int, int, int], float] = {}

    def frame(self, env: int, episode: int, step: int) -> np.ndarray:
        return np.full((2, 2), 1 + env * 100 + episode * 25 + step, np.uint8)

    def add(self, count: int) -> None:
        for _ in range(count):
            n = len(self.lengths)
            length = np.array([self.lengths[e][self.episode[e]] for e in range(n)])
            ended = self.step == length  # the observation after the last action: its own action only resets
            frames = np.stack([self.frame(e, self.episode[e], self.step[e]) for e in range(n)])
            reward = np.where(ended, 0, self.rng.normal(size=n)).astype(np.float32)
            terminal = (self.step == length - 1) | ((self.step % self.lives == self.lives - 1) & ~ended)
            for e in range(n):
                self.rewards[e, self.episode[e], self.step[e]] = reward[e]
            self.replay.add(frames, self.step == 0, self.step % 5, reward, terminal, ~ended)
            self.episode, self.step = np.where(ended, self.episode + 1, self.episode), np.where(ended, 0, self.step + 1)

    def check(self, batch) -> set[tuple[int, int, int]]:
        """Compare each transition with what the naive record gives for it."""
        seen = set()
        for i in range(len(batch.actions)):
            code = int(batch.obs[i, -1, 0, 0]) - 1
            env, episode, step = code // 100, code % 100 // 25, code % 25
            seen.add((env, episode, step))
            length = self.lengths[env][episode]
            assert step < length, "an episode's last observation must not start a transition"
            self.check_stack(batch.obs[i], env, episode, step)
            returns, discount, at = 0.0, 1.0, step
            for _ in range(self.replay.n_step):
                returns += discount * self.rewards[env, episode, at]
                discount *= GAMMA
                at += 1
                if at == length or at % self.lives == 0:
                    discount = 0.0
                    break
            assert batch.actions[i] == step % 5
            assert batch.returns[i] == pytest.approx(returns, abs=1e-5)
            assert batch.discounts[i] == pytest.approx(discount, abs=1e-6)
            self.check_stack(batch.next_obs[i], env, episode, at)
        return seen

    def check_stack(self, stack, env, episode, step):
        wanted = [self.frame(env, episode, s) if s >= 0 else np.zeros((2, 2)) for s in range(step - 3, step + 1)]
        np.testing.assert_array_equal(stack, np.stack(wanted))


def make(capacity=80, n_step=3, directory=None, priority=0.0):
    return Replay(capacity, 2, (2, 2), stack=4, n_step=n_step, gamma=GAMMA, directory=directory, priority=priority)


LENGTHS = [[9, 1, 24, 13], [20, 16, 3, 24]]


@pytest.mark.parametrize("n_step", [1, 3, 5])
def test_no_transition_leaks_across_an_episode_and_all_are_drawn(n_step):
    record = Record(make(n_step=n_step), LENGTHS)
    record.add(36)
    seen = record.check(record.replay.sample(4000, np.random.default_rng(1)))
    everything = {
        (e, ep, s)
        for e in (0, 1)
        for ep, length in enumerate(LENGTHS[e])
        for s in range(length)
        if sum(n + 1 for n in LENGTHS[e][:ep]) + s < 36 - n_step
    }
    assert seen == everything


def test_a_full_ring_serves_nothing_across_its_seam():
    record = Record(make(capacity=60), LENGTHS)
    record.add(47)
    assert len(record.replay) == 60
    record.check(record.replay.sample(4000, np.random.default_rng(1)))


def test_a_frame_is_stored_once():
    replay = Replay(1000, 4)
    naive = 1000 * 4 * 84 * 84  # one stack of four per transition, even before the next observation
    assert replay.frames.nbytes * 4 == naive


def test_transitions_are_drawn_by_their_errors():
    record = Record(make(priority=0.5), LENGTHS)
    record.add(36)
    replay, rng = record.replay, np.random.default_rng(0)
    record.check(replay.sample(400, rng))  # all alike, as none was learned from
    errors = {}
    for _ in range(40):
        batch = replay.sample(50, rng)
        wrong = rng.gamma(0.5, size=50).astype(np.float32)
        replay.reprioritize(batch, wrong)
        errors |= dict(zip(zip(*batch.where, strict=True), wrong, strict=True))  # of one drawn twice, the last counts
    assert len(errors) == len(record.check(replay.sample(4000, rng))), "all were learned from"
    batch = replay.sample(60_000, rng)
    drawn = Counter(zip(*batch.where, strict=True))
    shares = {at: np.sqrt(error + 1e-3) for at, error in errors.items()}
    total = sum(shares.values())
    for at, share in shares.items():
        wanted = 60_000 * share / total
        assert abs(drawn[at] - wanted) < 5 * np.sqrt(wanted)
    weights = {at: weight for at, weight in zip(zip(*batch.where, strict=True), batch.weights, strict=True)}
    rarest = min(shares, key=shares.__getitem__)
    for at, weight in weights.items():
        assert weight == pytest.approx((shares[rarest] / shares[at]) ** 0.4, rel=1e-3)


def test_what_was_never_learned_from_is_drawn_as_what_was_most_wrong():
    record = Record(make(priority=1.0, capacity=400), LENGTHS)
    record.add(30)
    replay, rng = record.replay, np.random.default_rng(0)
    for _ in range(20):
        batch = replay.sample(50, rng)
        replay.reprioritize(batch, np.full(50, 1e-2, np.float32))
    old = replay.next_tick
    record.add(8)
    drawn = replay.sample(4000, rng).where
    assert (drawn[0] >= old - replay.n_step).mean() > 0.85


def learn(replay, rng, times=10):
    for _ in range(times):
        batch = replay.sample(50, rng)
        replay.reprioritize(batch, rng.gamma(0.5, size=50).astype(np.float32))


def test_a_resumed_ring_remembers_what_was_wrong_at_its_checkpoint(tmp_path):
    record, rng = Record(make(priority=0.5, directory=tmp_path), LENGTHS), np.random.default_rng(0)
    record.add(30)
    learn(record.replay, rng)
    state = record.replay.state()
    wanted = record.replay.sample(200, np.random.default_rng(1))
    learn(record.replay, rng)  # by a run that was then killed
    record.replay.flush()
    again = make(priority=0.5, directory=tmp_path)
    again.restore(state, goes_on=True)
    found = again.sample(200, np.random.default_rng(1))
    np.testing.assert_array_equal(found.where, wanted.where)
    np.testing.assert_array_equal(found.weights, wanted.weights)
    assert not np.array_equal(record.replay.sample(200, np.random.default_rng(1)).where, wanted.where)
    longer = make(capacity=160, priority=0.5, directory=tmp_path)
    longer.restore(state, goes_on=True)
    np.testing.assert_array_equal(longer.sample(200, np.random.default_rng(1)).where, wanted.where)


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_an_error_that_is_no_number_changes_no_priority(error):
    record, rng = Record(make(priority=0.5), LENGTHS), np.random.default_rng(0)
    record.add(30)
    learn(record.replay, rng)
    before = record.replay.state()
    record.replay.reprioritize(record.replay.sample(50, rng), np.full(50, error, np.float32))
    after = record.replay.state()
    assert after["largest"] == before["largest"]
    assert after["mass"].equal(before["mass"])


def test_a_ring_on_disk_goes_on_after_a_resume_without_mixing_runs(tmp_path):
    record = Record(make(directory=tmp_path), LENGTHS)
    record.add(20)
    state = record.replay.state()
    record.add(10)  # written after the checkpoint, by a run that was then killed
    record.replay.flush()
    replay = make(directory=tmp_path)
    replay.restore(state)
    resumed = Record(replay, LENGTHS)
    resumed.episode, resumed.step = np.array([3, 3]), np.array([0, 0])
    resumed.rewards = record.rewards
    resumed.add(12)
    batch = replay.sample(4000, np.random.default_rng(1))
    seen = resumed.check(batch)
    assert {s for e, ep, s in seen if (e, ep) == (0, 3)} >= set(range(9))
    assert any(ep == 0 for _, ep, _ in seen)


@pytest.mark.parametrize("dead", [5, 30, 80])
def test_no_transition_leads_into_a_dead_run(tmp_path, dead):
    """A run that begins anew in the directory of one that was killed before its first checkpoint: the old ticks fit
    the new numbering, and only the order of the slots tells the two runs apart."""
    Record(make(directory=tmp_path), [[80], [80]], lives=200).add(dead)
    replay = make(directory=tmp_path)
    assert replay.tick.max() > 0
    record = Record(replay, [[24], [24]])
    for _ in range(12):
        record.add(1)
        if len(replay) > 12:
            batch = replay.sample(200, np.random.default_rng(0))
            record.check(batch)
            assert max(step for _, _, step in record.check(batch)) + replay.n_step < replay.size


def test_a_slot_that_a_kill_left_half_written_is_never_drawn(tmp_path, monkeypatch):
    record = Record(make(directory=tmp_path), [[24, 24, 24], [24, 24, 24]])
    record.add(50)  # the ring has come round, so that what is overwritten has a tick; an episode begins
    state, at = record.replay.state(), record.replay.cursor
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Replay, "advance", lambda self: (_ for _ in ()).throw(SystemExit))
        record.add(1)
    replay = make(directory=tmp_path)
    replay.restore(state)
    slots, _ = replay._draw(4000, np.random.default_rng(0))
    reached = {(slot + k) % replay.length for slot in slots for k in range(replay.n_step + 1)}
    assert at not in reached
    assert len(reached) > 20


def test_a_map_that_was_killed_while_it_was_made_is_made_again(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("os.posix_fallocate", lambda *_: (_ for _ in ()).throw(SystemExit))
        make(directory=tmp_path)
    record = Record(make(directory=tmp_path), LENGTHS)
    record.add(20)
    record.check(record.replay.sample(100, np.random.default_rng(0)))


def test_a_directory_of_another_shape_is_refused(tmp_path):
    make(capacity=100, directory=tmp_path)
    with pytest.raises(RunError, match=r"tick.npy holds int64 \(50,\), but this run needs int64 \(40,\)"):
        make(directory=tmp_path)


def test_too_little_data_is_refused():
    with pytest.raises(UserError, match="too short for stacks of 4"):
        make(capacity=10)
    record = Record(make(), LENGTHS)
    record.add(3)
    with pytest.raises(UserError, match="no complete transition"):
        record.replay.sample(4, np.random.default_rng(0))


def test_a_disk_too_small_for_the_replay_is_named_before_it_is_written_to(tmp_path):
    """On a real file system of 4 MiB, where mounting one is allowed."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(RunError, match=r"needs 7 MiB in .* lower replay_capacity"):
            Replay(1000, 2, directory=tmp_path / "replay")
        assert not (tmp_path / "replay" / "frames.npy").exists()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
