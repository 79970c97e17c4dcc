"""The accelerator's kernel: on an accelerator where there is one, else its selection on the CPU and its loops in
Triton's interpreter."""

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pretend
import pytest
import torch
from selection import in_full, mostly_in_full

from rl_interp.core.errors import UserError
from rl_interp.sae import ArrayActivations, Feed, SAEConfig, Trainer, fit
from rl_interp.sae.training.feed import ahead
from rl_interp.sae.training.kernels import accelerator
from rl_interp.sae.training.kernels.accelerator import AcceleratorKernel, largest_of_rows
from rl_interp.sae.training.kernels.cpu import CPUKernel
from rl_interp.sae.training.kernels.pairs import DenseKernel, Pairs
from rl_interp.sae.training.variants import VARIANTS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported, which reads it once

SMALL = SAEConfig(latents=32, k=4, epochs=2, batch_size=30, aux_k=8)


@pytest.fixture
def _exact(monkeypatch):
    """Selection in full precision and by several chunks, so that it must be the reference's."""
    monkeypatch.setattr(accelerator, "bf16_pays", lambda device: False)
    monkeypatch.setattr(accelerator, "_SELECTION_BYTES", 1)


@pytest.fixture
def _loops():
    pytest.importorskip("triton", reason="triton is not installed; it comes with PyTorch's builds for accelerators")


@pytest.fixture
def kernel(request):
    if request.param == "accelerator":
        request.getfixturevalue("_loops")
    return AcceleratorKernel() if request.param == "accelerator" else CPUKernel()


def trainer_of(config: SAEConfig, seed: int = 0) -> Trainer:
    rng = np.random.default_rng(seed)
    data, target = (ArrayActivations(np.maximum(rng.normal(size=(240, width)), 0)) for width in (12, 150))
    return Trainer(Feed(data, config, target=target, device=DEVICE), config)


@pytest.mark.parametrize(("shape", "k"), [((5, 4096), 3), ((4, 2048), 32), ((3, 999), 7), ((6, 40), 30)])
def test_the_largest_of_a_row_are_found_group_by_group(shape, k):
    pre = torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16()
    pre[0] = 1.0  # all alike
    pre[1, 17:60] = 9.0  # neighbours
    values, places = largest_of_rows(pre, k)
    assert torch.equal(pre.gather(1, places), values)
    assert torch.equal(values.sort(descending=True).values, pre.topk(k).values)
    assert all(len(set(row)) == k for row in places.tolist())


@pytest.mark.usefixtures("_exact")
@pytest.mark.parametrize("kernel", [*in_full("accelerator"), "cpu"], indirect=True)
def test_pairs_are_those_of_the_reference(kernel):
    generator = torch.Generator().manual_seed(0)
    device = "cpu" if isinstance(kernel, CPUKernel) else DEVICE
    x, encoder, bias = (torch.randn(size, generator=generator).to(device) for size in ((80, 12), (48, 12), 48))
    bias += 9  # so that rounding leaves the positive ones positive
    for select, *argument in (
        ("top_rows", 5),
        ("top_rows", 40),
        ("top_all", 360),
        ("above", 9 + torch.rand(48, generator=generator).to(device)),
    ):
        (got, values), (wanted, reference) = (
            getattr(each, select)(x, encoder, bias, *argument) for each in (kernel, DenseKernel())
        )
        for a, b in zip(got.by_latent, Pairs(got.starts, got.latents, 48).by_latent, strict=True):
            assert torch.equal(a.long(), b.long())  # sorted by counting, and by PyTorch
        if select == "above":  # some just below are selected too
            kept = values >= argument[0][got.latents.long()]
            assert kept.float().mean() > 0.9
            got, values = got.where(kept), values[kept]
        assert torch.equal(got.starts, wanted.starts)
        assert torch.equal(got.latents, wanted.latents)
        torch.testing.assert_close(values, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [*in_full("accelerator"), "cpu"], indirect=True)
def test_selection_in_bf16_misses_only_what_is_about_as_large(monkeypatch, kernel):
    monkeypatch.setattr(accelerator, "bf16_pays", lambda device: True)
    if isinstance(kernel, CPUKernel):
        kernel._int8, kernel._bf16 = False, True
    generator = torch.Generator().manual_seed(0)
    device = "cpu" if isinstance(kernel, CPUKernel) else DEVICE
    x, encoder, bias = (torch.randn(size, generator=generator).to(device) for size in ((60, 128), (256, 128), 256))
    exact = torch.addmm(bias, x, encoder.T)
    taken = _taken(*kernel.top_rows(x, encoder, bias, 16), exact)
    assert (taken.sum(1) == 16).all()
    least, largest_left = exact.masked_fill(~taken, torch.inf).amin(1), exact.masked_fill(taken, -torch.inf).amax(1)
    if isinstance(kernel, CPUKernel):  # whose candidates are put in the order of full precision
        assert (least > largest_left).all()
    else:
        step = 2.0**-8 * exact.abs().amax()  # of the largest one's last bit
        assert 0 < (largest_left - least).max() < 4 * step  # not in the order of full precision everywhere
    floors = torch.rand(256, generator=generator).to(device) * 10
    taken = _taken(*kernel.above(x, encoder, bias, floors), exact)
    assert taken[exact >= floors].all()
    assert (exact >= floors)[taken].float().mean() > 0.9


def _taken(pairs: Pairs, values: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    taken = torch.zeros_like(exact, dtype=torch.bool)
    taken[pairs.samples, pairs.latents.long()] = True
    torch.testing.assert_close(values, exact[taken], rtol=1e-5, atol=1e-4)
    return taken


@pytest.mark.usefixtures("_exact", "_loops")
@pytest.mark.parametrize("variant", mostly_in_full(VARIANTS, ["jumprelu"]))
def test_losses_and_gradients_are_the_dense_ones(variant):
    found = []
    for kernel in (AcceleratorKernel(), DenseKernel()):
        trainer = trainer_of(replace(SMALL, variant=variant))
        trainer.variant.double().kernel = kernel
        x, y = (each[:30].double() for each in trainer.feed.draw(np.random.default_rng(1), 30))
        losses = trainer.variant.losses(x, y, trainer.feed.out.variance)
        gradients = torch.autograd.grad(losses.loss, list(trainer.variant.parameters()), allow_unused=True)
        found.append([losses.loss, losses.residual, losses.fired, *(each for each in gradients if each is not None)])
    for got, wanted in zip(*found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("_exact", "_loops")
@pytest.mark.full
def test_a_fit_is_the_dense_one_and_the_same_each_time():
    fitted = []
    for kernel in (AcceleratorKernel(), AcceleratorKernel(), DenseKernel()):
        trainer = trainer_of(SMALL)
        trainer.variant.kernel = kernel
        trainer.silent[:6] = 10**9  # so that some are revived
        trainer.run(should_stop=lambda each=trainer: each.updates == 2)
        fitted.append(trainer.sae())
    for got, again, wanted in zip(*(each.parameters() for each in fitted), strict=True):
        assert torch.equal(got, again)
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", ["sparse", *in_full("dense")])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fit_keeps_to_its_device(monkeypatch, variant, kernel):
    """On a device that is only pretended, with its sums by PyTorch: an operation on tensors of two devices raises."""
    monkeypatch.setattr("rl_interp.sae.training.feed.pick_device", lambda name: pretend.DEVICE)
    monkeypatch.setattr(
        "rl_interp.sae.training.feed.send", lambda batch, device: pretend.Elsewhere(torch.from_numpy(batch))
    )
    monkeypatch.setattr(accelerator, "bf16_pays", lambda device: False)
    monkeypatch.setattr(accelerator, "find_spec", lambda name: "there")
    monkeypatch.setattr(accelerator, "_loops", lambda: SimpleNamespace(dots=dots, sums=sums))
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda groups, fused: adam(groups, foreach=False))
    config = replace(SMALL, variant=variant, kernel=kernel, dead_after=0.2)
    data, target = (ArrayActivations(np.random.default_rng(0).normal(size=(240, width))) for width in (12, 20))
    with pretend.Pretending():
        trainer = Trainer(Feed(data, config, target=target), config)
        assert all(parameter.device == pretend.DEVICE for parameter in trainer.variant.parameters())
        trainer.silent[:6] = 10**9
        trainer.run()
        trainer.load_state_dict(trainer.state_dict())
        assert {parameter.device.type for parameter in trainer.sae().parameters()} == {"cpu"}


def dots(samples, latents, left, right, offsets):
    return (left[samples] * right[latents]).sum(1) + offsets[latents]


def sums(starts, columns, weights, rows):
    count = len(starts) - 1
    row = torch.arange(count, device=starts.device).repeat_interleave(starts.diff(), output_size=len(columns))
    return rows.new_zeros(count, rows.shape[1]).index_add(0, row, weights[:, None] * rows[columns])


def test_batches_fetched_ahead_are_the_same_and_errors_arrive():
    def numbers():
        yield from map(torch.tensor, range(5))
        raise ValueError("the disk is gone")

    seen = []
    with pytest.raises(ValueError, match="the disk is gone"):
        for item in ahead(numbers()):
            seen.append(item.item())
    assert seen == [0, 1, 2, 3, 4]
    assert [item.item() for item in ahead(map(torch.tensor, range(3)))] == [0, 1, 2]


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(accelerator, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="kernel='sparse' given on an accelerator, which needs triton; install it"):
        accelerator.check_triton()
    with pytest.raises(UserError, match="device 'cuda:9' is not usable here"):
        fit(ArrayActivations(np.eye(100)), SMALL, device="cuda:9")
