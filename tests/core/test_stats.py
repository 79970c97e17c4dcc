import numpy as np
import pytest

from rl_interp.core.errors import UserError
from rl_interp.core.stats import bootstrap, iqm, mean


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm([100, 1, 2, 3, 4, 5, 6, -100]) == pytest.approx(np.mean([2, 3, 4, 5]))
    assert iqm(np.arange(12).reshape(3, 4)) == pytest.approx(5.5)


def test_bootstrap_of_a_mean_has_the_normal_width():
    sample = np.random.default_rng(0).normal(10, 2, 400)
    interval = bootstrap([sample], mean)
    half = 1.96 * sample.std() / 20
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.03)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    samples = [rng.normal(0, 1, 40) for _ in range(200)]
    intervals = [bootstrap([sample], mean, resamples=300, seed=i) for i, sample in enumerate(samples)]
    covered = np.mean([i.low <= 0 <= i.high for i in intervals])
    assert 0.89 <= covered <= 0.99


def test_strata_are_resampled_apart():
    interval = bootstrap([[1.0, 1.0], [5.0, 5.0]], lambda a, b: float(b.mean() - a.mean()))
    assert (interval.low, interval.high) == (4, 4)


def test_an_empty_or_non_finite_stratum_is_refused():
    for strata in ([], [[]], [[1.0, np.nan]]):
        with pytest.raises(UserError, match="at least one finite score"):
            bootstrap(strata)
