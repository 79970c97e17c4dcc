import numpy as np
import pytest

from rl_interp.core.errors import UserError
from rl_interp.core.stats import FEWEST, TOO_FEW, bootstrap, by_group, iqm, mean, plain, shown, wilson


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm([100, 1, 2, 3, 4, 5, 6, -100]) == pytest.approx(np.mean([2, 3, 4, 5]))
    assert iqm(np.arange(12).reshape(3, 4)) == pytest.approx(5.5)


def test_bootstrap_of_a_mean_has_the_normal_width():
    sample = np.random.default_rng(0).normal(10, 2, 400)
    interval = bootstrap([sample], mean, resamples=10_000)
    half = 1.96 * sample.std() / 20
    assert interval.value == sample.mean()
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.01)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    samples = [rng.normal(0, 1, 40) for _ in range(200)]
    intervals = [bootstrap([sample], mean, resamples=300, seed=i) for i, sample in enumerate(samples)]
    covered = np.mean([i.low <= 0 <= i.high for i in intervals])
    assert 0.89 <= covered <= 0.99


def test_strata_are_resampled_apart():
    first, second = [1.0] * 5, [5.0] * 4 + [5.1]
    interval = bootstrap([first, second], lambda a, b: float(b.mean() - a.mean()))
    assert 4 <= interval.low < interval.high <= 4.1
    assert interval.excludes_zero
    assert not bootstrap([first, second], lambda a, b: float(b.mean() - a.mean() - 4.02)).excludes_zero


def test_an_empty_or_non_finite_stratum_is_refused():
    for strata in ([], [[]], [[1.0, np.nan]]):
        with pytest.raises(UserError, match="at least one finite score"):
            bootstrap(strata)


@pytest.mark.parametrize(
    "values", [[0.966], [1.0, 2.0, 3.0, 4.0], [0.0] * 18 + [0.9] * 2, [5.0] * 30], ids=["one", "four", "rare", "alike"]
)
def test_of_too_few_values_or_too_few_that_differ_there_is_no_interval(values):
    interval = bootstrap([values])
    assert (interval.value, interval.interval, interval.excludes_zero) == (iqm(values), None, None)
    assert interval.shown(".1f") == f"{iqm(values):.1f} ({TOO_FEW})"
    assert plain(interval) is None
    assert shown(plain(interval)) == shown((None, None)) == f"({TOO_FEW})"
    assert f"fewer than {FEWEST}" in TOO_FEW


def test_one_small_stratum_is_enough_to_have_no_interval():
    assert bootstrap([np.arange(30), [1.0, 2.0]], lambda a, b: float(a.mean() - b.mean())).interval is None


def test_of_the_fewest_values_an_interval_still_covers_most_of_the_time():
    samples = np.random.default_rng(2).normal(0, 1, (300, FEWEST))
    intervals = [bootstrap([s], lambda five: float(np.sort(five)[1:4].mean()), resamples=200) for s in samples]  # IQM
    assert np.mean([i.low <= 0 <= i.high for i in intervals]) > 0.85


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (2, 20), (20, 20), (61, 100)])
def test_a_share_has_wilson_s_interval(successes, count):
    interval = wilson([True] * successes + [False] * (count - successes))
    z, share = 1.959964, successes / count
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    assert (interval.low, interval.high) == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert interval.low < interval.high
    assert interval.value == share


def test_of_groups_only_their_means_are_resampled():
    values, groups = np.array([1, 3, np.nan, 5, np.nan, 7.0]), np.array([4, 4, 4, 0, 2, 0])
    assert by_group(values, groups).tolist() == [6, 2], "of group 2 nothing is known"
    assert by_group(np.array([np.nan]), np.array([0])).size == 0
