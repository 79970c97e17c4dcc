"""What is measured after a fit, on stores that are made up as they are read."""

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rl_interp.analysis.sae import evaluation
from rl_interp.sae import ArrayActivations, TopK, evaluate, generality

WIDTH, ROWS = 108, 100_000
HELD_OUT = ROWS // 2
"""The first row that is held out; an episode is a hundred rows."""


class Stored:
    """Rows of a table, again and again, on `q.in` of the agent `conv_agent`."""

    hook, width, positions = "q.in", WIDTH, 1

    def __init__(self, table: np.ndarray):
        self.table = table.astype(np.float32)

    def __len__(self) -> int:
        return ROWS

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.table[rows % len(self.table)]

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        return rows // 100


@pytest.fixture
def fitted(conv_agent):
    """A dictionary with a latent for each dimension: its positive part."""
    store, sae = Stored(1000 + np.random.default_rng(0).normal(size=(1000, WIDTH))), TopK(WIDTH, WIDTH, 16)
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(WIDTH))
        sae.W_dec.copy_(torch.eye(WIDTH))
    conv_agent.hook_points = {"q.in": replace(conv_agent.hook_points["q.in"], head="q")}
    agent = SimpleNamespace(agent=conv_agent, has_q_values=True)
    return SimpleNamespace(
        sae=sae, agent=agent, store=store, target=store, train_rows=np.arange(HELD_OUT),
        held_out_rows=np.arange(HELD_OUT, ROWS), rows=np.arange(ROWS),
    )  # fmt: skip


def test_measuring_takes_memory_for_row_numbers_and_a_few_batches(fitted):
    evaluation.metrics_json(fitted, in_memory=False)  # what is imported on the way
    tracemalloc.start()
    evaluation.metrics_json(fitted, in_memory=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16e6 < 0.5 * ROWS * WIDTH * 4


def test_the_mean_is_exact_over_many_rows(fitted):
    wanted = fitted.store.table.mean(0, dtype=np.float64)
    np.testing.assert_allclose(evaluation._mean(fitted), wanted, rtol=1e-6)


def test_dead_and_ultra_rare_latents_are_counted_over_all_rows(fitted):
    """Two of 108 latents fire in one row of a hundred thousand, one of either side, and six never."""
    table = np.eye(WIDTH)[np.arange(ROWS) % 100]
    table[7], table[-7] = np.eye(WIDTH)[[105, 106]]
    fitted.store = fitted.target = Stored(table)
    found = evaluation.metrics_json(fitted, in_memory=False)
    assert found["dead_fraction"] == 6 / WIDTH
    assert found["ultra_rare_fraction"] == 2 / WIDTH


@pytest.mark.parametrize("episodes", [np.arange(500) // 20, np.arange(500) % 25, np.arange(500)[::-1] // 20])
def test_generality_is_the_share_of_episodes_in_which_a_latent_fires(fitted, episodes):
    fitted.store.table = np.maximum(np.random.default_rng(1).normal(-2.5, 1, (1000, WIDTH)), 0).astype(np.float32)
    rows = np.arange(300, 800)
    fires = fitted.store.read(rows) > 0
    wanted = np.mean([fires[episodes == each].any(0) for each in range(25)], axis=0)
    assert fires.sum(1).max() <= 16
    assert 0 < wanted.mean() < 1
    np.testing.assert_allclose(generality(fitted.sae, fitted.store, rows, episodes, batch=64), wanted)


def test_the_variance_unexplained_is_right_where_means_are_large_beside_the_spread():
    rng = np.random.default_rng(0)
    x = (1000 + 0.01 * rng.normal(size=(400, 8))).astype(np.float32)
    sae = TopK(8, 16, 4)
    with torch.no_grad():
        sae.W_enc.zero_()
        sae.b_dec.copy_(torch.from_numpy(x.astype(np.float64).mean(0)))
    spread = x.astype(np.float64)
    wanted = ((spread - sae.b_dec.detach().numpy()) ** 2).sum() / ((spread - spread.mean(0)) ** 2).sum()
    assert evaluate(sae, ArrayActivations(x), np.arange(400)).fvu == pytest.approx(wanted, rel=1e-3)
