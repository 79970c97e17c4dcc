"""Features of two dictionaries matched, against NumPy's correlations."""

import numpy as np
import pytest

from rl_interp.core.errors import UserError
from rl_interp.sae import Features, match


def test_features_are_matched_by_their_correlation():
    random = np.random.default_rng(0)
    first = np.maximum(random.normal(size=(500, 7)), 0)
    first[:, 6] = 0  # never fires
    order = np.array([3, 0, 5, 1])
    second = np.column_stack([2 * first[:, order], np.maximum(random.normal(size=(500, 2)), 0)])
    found = match(Features.dense(first), Features.dense(second))
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(first.T, second.T)[:7, 7:]
    np.testing.assert_allclose(found.correlation, np.nan_to_num(expected), atol=1e-6)
    assert [(f, g) for f, g in found.pairs if found.correlation[f, g] > 0.99] == [
        (int(order[g]), g) for f, g in found.pairs[:4]
    ]
    assert len({f for f, _ in found.pairs}) == len({g for _, g in found.pairs}) == len(found.pairs)
    assert len(found.best(0)) == 6
    assert found.best(1)[:4] == pytest.approx(1)
    moved = np.roll(second, 250, axis=0)
    np.testing.assert_allclose(found.by_chance[:6], np.corrcoef(first[:, :6].T, moved.T)[:6, 6:], atol=1e-6)
    assert found.best_by_chance(0).max() < 0.3


@pytest.mark.parametrize("moments", [100, 101])
def test_by_chance_features_stay_at_their_positions(moments):
    """Features that tell nothing but the position have no more in common than by chance."""
    random = np.random.default_rng(0)
    place = np.tile(random.random((48, 6)), (moments, 1))
    first, second = (Features.dense(place * (random.random(place.shape) < 0.9)) for _ in range(2))
    found = match(first, second, positions=48)
    np.testing.assert_allclose(found.best_by_chance(0), found.best(0), atol=0.03)
    assert found.best(0).min() > 0.5


def test_features_of_other_samples_are_not_matched():
    with pytest.raises(UserError, match="3 and 4 samples"):
        match(Features.dense(np.ones((3, 2))), Features.dense(np.ones((4, 2))))
    with pytest.raises(UserError, match="4 samples given of 3 positions each"):
        match(Features.dense(np.ones((4, 2))), Features.dense(np.ones((4, 2))), positions=3)
