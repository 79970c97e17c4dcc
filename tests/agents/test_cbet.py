"""The bonus against plain dictionaries, and the mistakes that were published with it."""

import io
from collections import Counter

import numpy as np
import pytest
import torch

from rl_interp.agents.cbet import CBET, CBETConfig, CountTable, ExactKey, SimHash
from rl_interp.core.errors import UserError

N = 4
QUIET = CBETConfig(coefficient=1.0, width=1 << 14, reset_probability=0.0)


def steps(count=300, seed=0):
    """Random small observations, in which states and changes come again."""
    rng = np.random.default_rng(seed)
    scene = rng.integers(0, 2, (N, 2, 2), np.uint8)
    for _ in range(count):
        following = rng.integers(0, 2, (N, 2, 2), np.uint8) * 255
        yield following[:, 0], scene, following, rng.random(N) < 0.2
        scene = following


def with_dictionaries(form):
    """The definition: counters of tuples, one environment after another."""
    states, changes = Counter(), Counter()
    for s, before, after, first in steps():
        bonus = []
        for e in range(N):
            if first[e]:
                bonus.append(0.0)
                continue
            state, change = tuple(s[e].ravel()), tuple((after[e].astype(int) - before[e].astype(int)).ravel())
            states[state] += 1
            changes[change] += 1
            n_s, n_c = states[state], changes[change]
            bonus.append(1 / (n_s + n_c) if form == "sum" else 1 / np.sqrt(n_s * n_c))
        yield np.array(bonus)


@pytest.mark.parametrize("form", ["sum", "root"])
def test_the_bonus_is_that_of_plain_dictionaries(form):
    config = CBETConfig(coefficient=1.0, form=form, width=1 << 14, reset_probability=0.0)
    cbet = CBET(config, N, (2,), (2, 2), seed=0)
    for step, wanted in zip(steps(), with_dictionaries(form), strict=True):
        np.testing.assert_allclose(cbet(*step), wanted, rtol=1e-6)


def test_a_change_and_its_opposite_are_different_changes():
    """In bytes, 0 − 1 wraps around to 255, and would be the same as 255 − 0."""
    cbet = CBET(QUIET, 1, (1,), (1,), seed=0)
    no = np.zeros(1, bool)

    def bonus(state, before, after):
        return float(cbet(*(np.array([[v]], np.uint8) for v in (state, before, after)), no)[0])

    assert bonus(1, 0, 255) == 1 / 2
    assert bonus(2, 1, 0) == 1 / 2, "a new state by a new change"
    assert bonus(3, 0, 255) == pytest.approx(1 / 3), "a new state by a known change"


def test_nothing_is_counted_where_an_episode_begins():
    cbet = CBET(QUIET, 1, (1,), (1,), seed=0)
    step = (np.array([[3]], np.uint8), np.array([[9]], np.uint8), np.array([[1]], np.uint8))
    for _ in range(5):
        assert cbet(*step, np.ones(1, bool))[0] == 0
    assert cbet(*step, np.zeros(1, bool))[0] == 1 / 2


@pytest.mark.parametrize("key", ["exact", "simhash"])
def test_the_same_seed_counts_the_same_and_a_checkpoint_goes_on(key):
    config = CBETConfig(key=key, width=1 << 12, reset_probability=0.02)
    whole, again, resumed = (CBET(config, N, (2,), (2, 2), seed=5) for _ in range(3))
    recorded = list(steps())
    bonuses = [whole(*step) for step in recorded]
    assert all((again(*step) == bonus).all() for step, bonus in zip(recorded[:150], bonuses, strict=False))
    state = again.state()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    resumed.restore(torch.load(buffer, weights_only=True))
    assert all((resumed(*step) == bonus).all() for step, bonus in zip(recorded[150:], bonuses[150:], strict=True))


def test_states_and_changes_are_reset_independently_at_the_stated_rate():
    """However many environments share them, at each step of all."""
    cbet = CBET(CBETConfig(width=1 << 4, reset_probability=0.1), N, (2,), (2, 2), seed=0)
    cleared = np.zeros((2, 1000), bool)
    for t, step in enumerate(steps(1000)):
        for table in (cbet.states, cbet.changes):
            table.counts[0, 0] = 1000
        cbet(*step)
        cleared[:, t] = [table.counts[0, 0] < 1000 for table in (cbet.states, cbet.changes)]
    rate = 0.1
    assert abs(cleared.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / cleared.size)
    assert abs((cleared[0] & cleared[1]).mean() - rate**2) < 0.04


def test_counts_are_never_too_low_and_seldom_too_high():
    table, truth = CountTable(1 << 12), Counter()
    rng = np.random.default_rng(0)
    high = 0
    for _ in range(200):
        keys = rng.integers(0, 2000, 16).astype(np.uint64)
        for key, count in zip(keys.tolist(), table.add(keys), strict=True):
            truth[key] += 1
            assert count >= truth[key]
            high += count > truth[key]
    assert high / 3200 < 0.03


def test_exact_keys_tell_observations_apart_that_bytes_would_not():
    key = ExactKey(3, seed=0)
    values = np.array([[-1, 0, 0], [255, 0, 0], [0, -1, 0], [0, 0, 0], [-1, 0, 0]], np.int16)
    keys = key(values)
    assert len(set(keys.tolist())) == 4
    assert keys[0] == keys[4]


def test_simhash_puts_near_observations_together_and_far_ones_apart():
    rng = np.random.default_rng(0)
    x = rng.integers(-100, 100, (200, 64))
    hashed = SimHash(64, seed=0, bits=16)
    near = (hashed(x) == hashed(x + (rng.random(x.shape) < 0.02))).mean()
    far = (hashed(x) == hashed(rng.permuted(x, axis=1))).mean()
    assert near > 0.9
    assert far < 0.05


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"form": "max"}, "form='max' given; it is one of sum, root"),
        ({"key": "md5"}, "key='md5' given; it is one of exact, simhash"),
        ({"coefficient": -1}, "coefficient=-1 given"),
        ({"width": 1000}, "width=1000 given; it must be a power of two"),
    ],
)
def test_an_unknown_option_is_refused_in_one_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence):
        CBETConfig(**options)
