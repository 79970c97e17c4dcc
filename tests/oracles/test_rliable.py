"""IQM and its stratified bootstrap against rliable, the reference implementation."""

import numpy as np
import pytest
from rliable import library as rliable_library
from rliable import metrics as rliable_metrics

from rl_interp.core.stats import bootstrap, iqm


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
