"""The CPU's kernel: its compiled loops beside dense matrices, and selection in low precision."""

import numpy as np
import pytest
import torch

from rl_interp.core.device import int8_pays
from rl_interp.sae.training.kernels import loops as kernels
from rl_interp.sae.training.kernels.cpu import CPUKernel
from rl_interp.sae.training.kernels.pairs import DenseKernel


@pytest.mark.parametrize("shape", [(40, 64, 7, 4), (1, 30, 5, 29), (700, 300, 33, 16), (64, 3000, 8, 5)])
def test_kernels_select_and_sum_like_dense_matrices(shape):
    samples, latents, width, k = shape
    rng = np.random.default_rng(0)
    pre = rng.normal(size=(samples, latents)).astype(np.float32)
    pre[0] = np.abs(pre[0, 0])  # all alike
    counts, candidates = kernels.top_rows(pre, k)
    assert counts.sum() == len(candidates)
    starts = kernels.starts_of(counts)
    rows, values = np.repeat(np.arange(samples), counts), pre[np.repeat(np.arange(samples), counts), candidates]
    assert (values > 0).all()
    assert (counts[1:] <= 3 * k).all()
    starts, chosen, values = kernels.where(kernels.largest(starts, values, k), starts, candidates, values)
    for n in range(samples):
        mine = chosen[starts[n] : starts[n + 1]]
        assert (np.diff(mine) > 0).all()
        wanted = np.sort(pre[n][pre[n] > 0])[::-1][:k]
        np.testing.assert_array_equal(np.sort(pre[n, mine])[::-1], wanted)
    np.testing.assert_array_equal(chosen[: starts[1]], np.arange(k))  # of equal ones the first
    counts, got = kernels.above(pre, 0.5)
    found = np.zeros_like(pre, bool)
    found[np.repeat(np.arange(samples), counts), got] = True
    np.testing.assert_array_equal(found, pre >= 0.5)
    x, directions, offsets = (rng.normal(size=size) for size in ((samples, width), (latents, width), latents))
    rows = np.repeat(np.arange(samples), np.diff(starts))
    weights = rng.normal(size=len(chosen))
    matrix = np.zeros((samples, latents))
    matrix[rows, chosen] = weights
    np.testing.assert_allclose(
        kernels.dots(starts, chosen, x, directions, offsets), (x @ directions.T + offsets)[rows, chosen], atol=1e-12
    )
    np.testing.assert_allclose(kernels.sums(starts, chosen, weights, directions), matrix @ directions, atol=1e-12)
    residual, along = kernels.residuals(starts, chosen, weights, directions, directions[0], x)
    np.testing.assert_allclose(residual, matrix @ directions + directions[0] - x, atol=1e-12)
    np.testing.assert_allclose(along, (residual @ directions.T)[rows, chosen], atol=1e-10)
    ends, of_latent, places = kernels.by_latent(starts, chosen, latents)
    np.testing.assert_allclose(kernels.sums(ends, of_latent, weights[places], x), matrix.T @ x, atol=1e-12)
    np.testing.assert_allclose(kernels.totals(ends, weights[places]), matrix.sum(0), atol=1e-12)


def test_products_in_int8_are_those_of_numbers_rounded_to_255_steps():
    rng = np.random.default_rng(0)
    x, w, bias = (rng.normal(size=size).astype(np.float32) for size in ((50, 40), (30, 40), 30))
    x[3], x[4] = 0, -1e6 * np.abs(x[4])
    (rows, row_scales, row_lost), (latents, scales, lost) = kernels.quantised(x), kernels.quantised(w)
    for numbers, scale, loss, exact in ((rows, row_scales, row_lost, x), (latents, scales, lost, w)):
        np.testing.assert_allclose(numbers * scale[:, None], exact, atol=0.501 * scale.max())
        quiet = np.linalg.norm(np.where(np.abs(exact) < np.abs(exact).max(1, keepdims=True) / 2, exact, 0), axis=1)
        np.testing.assert_allclose(loss * quiet, np.linalg.norm(numbers * scale[:, None] - exact, axis=1), rtol=1e-2)
        np.testing.assert_allclose(np.abs(exact).max(1), 127 * scale, rtol=1e-6)
    product = rows.astype(np.int32) @ latents.T.astype(np.int32)
    wanted = (rows * row_scales[:, None].astype(np.float64)) @ (latents * scales[:, None]).T + bias
    np.testing.assert_allclose(kernels.rescaled(product, row_scales, scales, bias), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp32"])
def test_what_is_selected_in_low_precision_is_in_the_order_of_full_precision(precision):
    if precision == "int8" and not int8_pays(torch.device("cpu")):
        pytest.skip("needs a processor with VNNI: others overflow")
    kernel, dense = CPUKernel(), DenseKernel()
    kernel._int8, kernel._bf16 = precision == "int8", precision == "bf16"
    generator = torch.Generator().manual_seed(0)
    x, encoder, bias = (torch.randn(size, generator=generator) ** 3 for size in ((300, 64), (1000, 64), (1000,)))
    x[5] = 0  # whose scale is none
    x[::4] *= 100  # half of those that top_all looks at first: what it learns from them is too high for the others
    for select, argument in (("top_rows", 16), ("top_rows", 999), ("top_all", 16 * 300), ("top_all", 299_000)):
        (pairs, values), (wanted, reference) = (
            getattr(each, select)(x, encoder, bias, argument) for each in (kernel, dense)
        )
        exact = torch.addmm(bias, x, encoder.T)
        torch.testing.assert_close(values, exact[pairs.samples, pairs.latents.long()], rtol=1e-4, atol=0.1)
        got, all_wanted = (each.samples * 1000 + each.latents for each in (pairs, wanted))
        missed = ~torch.isin(all_wanted, got)
        assert len(got.unique()) == len(got) <= len(all_wanted)
        assert missed.float().mean() < 0.01
        assert reference[missed].square().sum() < 1e-4 * reference.square().sum()


@pytest.mark.skipif(not int8_pays(torch.device("cpu")), reason="needs a processor with VNNI: others overflow")
@pytest.mark.parametrize("loud", ["a number of a sample", "a weight of a latent"])
@pytest.mark.parametrize("width", [32, 256])
@pytest.mark.parametrize("times", [100, 10_000])
def test_one_loud_number_does_not_cost_the_others_their_precision(loud, width, times):
    generator = torch.Generator().manual_seed(0)
    x, encoder = (torch.randn(size, generator=generator) for size in ((200, width), (1000, width)))
    its, others = (x, encoder) if loud == "a number of a sample" else (encoder, x)
    its[::3, 0] *= times
    others[:, 0] = 0  # so that all depends on the rest
    kernel, bias = CPUKernel(), torch.zeros(1000)
    (pairs, values), (wanted, reference) = (each.top_rows(x, encoder, bias, 16) for each in (kernel, DenseKernel()))
    sums, best = (torch.zeros(200).index_add_(0, p.samples, v) for p, v in ((pairs, values), (wanted, reference)))
    assert (1 - sums / best).max() < 2e-3


@pytest.mark.parametrize("latents", [1, 20])
def test_data_of_one_dimension_are_selected_from(latents):
    x, encoder = torch.linspace(-2, 2, 50)[:, None], torch.linspace(0.5, 1, latents)[:, None]
    pairs, values = CPUKernel().top_rows(x, encoder, torch.zeros(latents), 1)
    assert torch.equal(pairs.samples, torch.arange(25, 50))
    assert (pairs.latents == latents - 1).all()
    torch.testing.assert_close(values, x[25:, 0] * encoder[-1])


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(kernels, "_WORTH_A_THREAD", 1)
    states, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            rng = np.random.default_rng(0)
            x, w = (rng.normal(size=size).astype(np.float32) for size in ((500, 40), (300, 40)))
            (rows, row_scales, _), (latents, scales, _) = kernels.quantised(x), kernels.quantised(w)
            product, nothing = rows.astype(np.int32) @ latents.T.astype(np.int32), np.zeros(300, np.float32)
            counts, latents = kernels.top_rows(kernels.rescaled(product, row_scales, scales, nothing), 9)
            pairs = kernels.starts_of(counts), latents
            values = kernels.dots(*pairs, x, w, nothing)
            pairs = kernels.where(kernels.largest(pairs[0], values, 9), *pairs, values)[:2]
            values = kernels.dots(*pairs, x, w, nothing)
            ends, samples, places = kernels.by_latent(*pairs, 300)
            states.append([*pairs, values, ends, samples, places, *kernels.above(x, 0.5)])
            states[-1] += [
                kernels.sums(ends, samples, values[places], x),
                *kernels.residuals(*pairs, values, w, w[0], x),
            ]
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*states, strict=True):
        np.testing.assert_array_equal(a, b)
