"""Probes of cells on planted classes, and their scores beside scikit-learn's."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rl_interp.analysis.probes.cells import NO_CLASS, confusions, f1, fit, macro_f1


def planted(count: int, kernel: int) -> tuple[Tensor, np.ndarray]:
    """Features in which a cell's class is written: in the cell itself, or in its right neighbour."""
    rng = np.random.default_rng(0)
    classes = rng.choice(5, (count, 6, 6), p=[0.1, 0.1, 0.1, 0.1, 0.6])
    maps = rng.normal(size=(count, 8, 6, 6)).astype(np.float32)
    written = classes if kernel == 1 else np.roll(classes, 1, 2)
    maps[:, 3] += np.array([-6, -3, 0, 3, 6])[written]
    maps[:, 5] += np.array([6, 0, -6, 0, 6])[written]
    if kernel == 3:
        classes[:, :, -1] = NO_CLASS  # whose right neighbour is beyond the board
    return torch.from_numpy(maps).half(), classes


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_probe_finds_what_is_written_in_the_cells_and_nothing_in_shuffled_classes(kernel):
    maps, classes = planted(120, kernel)
    groups = np.arange(20)
    shuffled = np.random.default_rng(1).permutation(classes[:100].ravel()).reshape(100, 6, 6)
    scores = []
    for wanted in (classes[:100], shuffled):
        probe = fit(maps[:100], wanted, 5, kernel)
        scores.append(macro_f1(confusions(classes[100:], probe.classes(maps[100:]), groups, 5)))
    assert scores[0].value > 0.95
    assert scores[0].interval[0] < scores[0].value < scores[0].interval[1]
    assert scores[1].value < 0.3


def test_a_3_x_3_probe_sees_what_a_1_x_1_probe_does_not():
    maps, classes = planted(60, 3)
    guess = fit(maps, classes, 5, 1).classes(maps)
    assert f1(confusions(classes, guess, np.zeros(60, int), 5)[0]).mean() < 0.35


def test_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    truth, guess = rng.integers(5, size=(2, 30, 4, 4))
    truth[:, 0, 0] = NO_CLASS
    found = f1(confusions(truth, guess, np.zeros(30, int), 5)[0])
    known = truth != NO_CLASS
    np.testing.assert_allclose(found, f1_score(truth[known], guess[known], average=None))


def test_macro_f1_is_that_of_scikit_learn_whichever_classes_there_are():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    for there, guessed in ((5, 5), (4, 4), (2, 4), (4, 2), (1, 1)):
        truth, guess = rng.integers(there, size=(30, 4, 4)), rng.integers(guessed, size=(30, 4, 4))
        found = macro_f1(confusions(truth, guess, np.arange(30), 5))
        assert found.value == pytest.approx(f1_score(truth.ravel(), guess.ravel(), average="macro"))
    assert macro_f1(confusions(truth, truth, np.arange(30), 5)).value == 1
