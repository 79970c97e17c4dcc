"""IQM and its stratified bootstrap against rliable, the reference implementation (extra `bench`)."""

import numpy as np
import pytest

from rl_interp.core.stats import bootstrap, iqm

rliable_metrics = pytest.importorskip("rliable.metrics", reason="needs the extra `bench`")
rliable_library = pytest.importorskip("rliable.library", reason="needs the extra `bench`")


def test_iqm_and_interval_agree_with_rliable():
    scores = np.random.default_rng(0).gamma(2.0, 100.0, size=(10, 3))  # runs x tasks
    assert iqm(scores) == pytest.approx(rliable_metrics.aggregate_iqm(scores))
    _, theirs = rliable_library.get_interval_estimates(
        {"a": scores},
        lambda s: np.array([rliable_metrics.aggregate_iqm(s)]),
        reps=4000,
        random_state=np.random.RandomState(0),
    )
    ours = bootstrap(list(scores.T), lambda *tasks: iqm(np.stack(tasks)), resamples=4000)
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs["a"][0, 0], abs=0.08 * width)
    assert ours.high == pytest.approx(theirs["a"][1, 0], abs=0.08 * width)
