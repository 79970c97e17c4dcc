"""Every variant's loss and its gradients beside their definitions, which are written out here from the papers, with
dense matrices in double precision."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from selection import in_full
from torch import Tensor

from rl_interp.sae import ArrayActivations, Feed, SAEConfig, Trainer
from rl_interp.sae.training.variants import VARIANTS

CONFIG = SAEConfig(latents=64, k=4, aux_k=8, prefixes=(0.125, 0.5, 1.0))
VARIANCE = 7.0

Defined = tuple[Tensor, Tensor, Tensor | float]
"""Latents `[N, F]`, what is to be small of the squared errors, and what is penalised, summed over the batch."""


def topk(p: SimpleNamespace, pre: Tensor, y: Tensor) -> Defined:
    """The k largest of a sample (Gao et al. 2024, arXiv 2406.04093)."""
    latents = pre.relu() * (pre >= pre.topk(CONFIG.k, dim=1).values[:, -1:])
    return latents, squares(p, latents, y), 0.0


def batch_topk(p: SimpleNamespace, pre: Tensor, y: Tensor) -> Defined:
    """The k·N largest of a batch (Bussmann et al. 2024, arXiv 2412.06410)."""
    latents = pre.relu() * (pre >= pre.flatten().topk(CONFIG.k * len(pre)).values[-1])
    return latents, squares(p, latents, y), 0.0


def matryoshka(p: SimpleNamespace, pre: Tensor, y: Tensor) -> Defined:
    """Every prefix of them on its own (Bussmann et al. 2025, arXiv 2503.17547); the mean, where they have the sum."""
    latents, whole, _ = batch_topk(p, pre, y)
    eighth, half = (squares(p, latents * (torch.arange(64) < size), y) for size in (8, 32))
    return latents, (eighth + half + whole) / 3, 0.0


def jumprelu(p: SimpleNamespace, pre: Tensor, y: Tensor) -> Defined:
    """z · H(z − θ), and a penalty on H(z − θ), with the pseudo-derivatives −θ/ε K((z − θ)/ε) and −1/ε K((z − θ)/ε) by θ
    (Rajamanoharan et al. 2024, arXiv 2407.14435, eqs. 11 and 12)."""
    fixed = p.log_threshold.detach().exp()
    moved = p.log_threshold.exp() - fixed  # zero, so that only its factor's share in the gradient is left
    above = (pre > fixed).double()
    window = (((pre - fixed) / p.bandwidth).abs() < 0.5).double()
    latents = pre * above - fixed / p.bandwidth * window * moved
    active = above - 1 / p.bandwidth * window * moved
    return latents, squares(p, latents, y), active.sum()


def gated(p: SimpleNamespace, pre: Tensor, y: Tensor) -> Defined:
    """The gates' signs open what has a scale and a bias of its own; a penalty on the gates, and a reconstruction from
    them by a decoder that does not learn from it (Rajamanoharan et al. 2024, arXiv 2404.16014)."""
    latents = (pre > 0) * (p.log_scale.exp() * (pre - p.b_enc) + p.b_strength).relu()
    frozen = SimpleNamespace(decoder=p.decoder.detach(), b_dec=p.b_dec.detach())
    return latents, squares(p, latents, y) + squares(frozen, pre.relu(), y), pre.relu().sum()


def squares(p: SimpleNamespace, latents: Tensor, y: Tensor) -> Tensor:
    return (y - latents @ p.decoder - p.b_dec).square().sum()


def trainer_of(variant: str, kernel: str, rng: np.random.Generator) -> Trainer:
    """From 16 to 12 numbers, with no parameter where it starts."""
    data, target = (ArrayActivations(rng.normal(size=(100, width)).astype(np.float32)) for width in (16, 12))
    config = replace(CONFIG, variant=variant, kernel=kernel)
    trainer = Trainer(Feed(data, config, target=target), config)
    trainer.variant.plan(1000)  # in a long fit, whose coefficient is weighed by nothing
    with torch.no_grad():
        for parameter in trainer.variant.parameters():
            parameter.copy_(torch.from_numpy(0.3 * rng.normal(size=parameter.shape)))
        trainer.variant.b_enc.sub_(1)
        for name, value in {"sparsity_coefficient": 4.0, "bandwidth": 0.2}.items():
            if hasattr(trainer.variant, name):
                getattr(trainer.variant, name).fill_(value)
    return trainer


def in_double(trainer: Trainer) -> SimpleNamespace:
    """What the variant has, copied."""
    parameters = dict(trainer.variant.named_parameters())
    state = {name: value.detach().double().clone() for name, value in trainer.variant.state_dict().items()}
    return SimpleNamespace(**{name: value.requires_grad_(name in parameters) for name, value in state.items()})


def clear(variant: str, p: SimpleNamespace, pre: Tensor) -> Tensor:
    """`[N]`: the samples in which rounding makes no latent active or inactive."""
    if variant == "topk":
        return apart(pre, CONFIG.k)
    if variant == "jumprelu":
        edges = [pre - p.log_threshold.exp() + side * p.bandwidth / 2 for side in (-1, 0, 1)]
    elif variant == "gated":
        edges = [pre, p.log_scale.exp() * (pre - p.b_enc) + p.b_strength]
    else:
        *_, last, first_left = pre.flatten().topk(CONFIG.k * len(pre) + 1).values
        assert last > 1.00001 * first_left
        return torch.ones(len(pre), dtype=torch.bool)
    return (torch.stack(edges).abs() > 1e-5).all(2).all(0)


def apart(pre: Tensor, k: int) -> Tensor:
    """`[N]`: whether the k largest stand out when they are rounded to bf16."""
    top = pre.topk(k + 1, dim=1).values
    return top[:, -2] > 1.05 * top[:, -1].clamp(min=1e-3)


def assert_close(got: Sequence[Tensor], wanted: Sequence[Tensor], dtype: torch.dtype) -> None:
    """To 1e-6, in double precision 1e-10, of each tensor's largest entry: what cancels to less keeps fewer digits."""
    tolerance = 1e-6 if dtype == torch.float32 else 1e-10
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=tolerance * b.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, *in_full(torch.float64)])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_of_both_kernels_are_those_of_the_definition(variant, seed, dtype):
    rng = np.random.default_rng(seed)
    x, y = (torch.from_numpy(rng.normal(size=(300, width))).to(dtype) for width in (16, 12))
    trainers = [trainer_of(variant, kernel, np.random.default_rng(seed)) for kernel in ("sparse", "dense")]
    for trainer in trainers:
        trainer.variant.to(dtype)
    p = in_double(trainers[0])
    pre = x.double() @ p.encoder.T + p.b_enc
    kept = clear(variant, p, pre)
    assert kept.sum() >= 100
    x, y, pre = x[kept], y[kept], pre[kept]
    latents, error, activity = DEFINITIONS[variant](p, pre, y.double())
    loss = error / (len(x) * VARIANCE) + getattr(p, "sparsity_coefficient", 0.0) * activity / (len(x) * CONFIG.k)
    parameters = [getattr(p, name) for name, _ in trainers[0].variant.named_parameters()]
    wanted = [loss, squares(p, latents, y) / (len(x) * VARIANCE), latents @ p.decoder + p.b_dec - y]
    wanted += torch.autograd.grad(loss, parameters)
    found = []
    for trainer in trainers:
        losses = trainer.variant.losses(x, y, VARIANCE)
        assert torch.equal(losses.fired, (latents > 0).any(0))
        assert losses.l0 == pytest.approx((latents > 0).sum(1).double().mean().item())
        gradients = torch.autograd.grad(losses.loss, list(trainer.variant.parameters()))
        found.append([losses.loss, losses.fvu, losses.residual, *gradients])
    for got, other in ((found[0], wanted), (found[1], wanted), found):
        assert_close(got, other, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, *in_full(torch.float64)])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("kernel", ["sparse", "dense"])
def test_the_auxiliary_loss_and_its_gradients_are_those_of_the_definition(kernel, seed, dtype):
    """Gao et al. 2024, §A.2: ‖e − ê‖² / ‖e‖², with ê what the largest dead latents make of the error e."""
    rng = np.random.default_rng(seed)
    x, residual = (torch.from_numpy(rng.normal(size=(300, width))).to(dtype) for width in (16, 12))
    trainer = trainer_of("topk", kernel, rng)
    trainer.variant.to(dtype)
    with torch.no_grad():
        trainer.variant.b_enc[:20] += 2
    trainer.silent[:20] = 10**9
    p = in_double(trainer)
    pre = x.double() @ p.encoder[:20].T + p.b_enc[:20]
    kept = apart(pre, CONFIG.aux_k)
    assert kept.sum() >= 50
    x, pre, residual = x[kept], pre[kept], residual[kept]
    latents = pre.relu() * (pre >= pre.topk(CONFIG.aux_k, dim=1).values[:, -1:])
    loss = (-residual.double() - latents @ p.decoder[:20]).square().sum() / residual.double().square().sum()
    got = trainer.aux_loss(x, residual, trainer.dead_latents)
    variant = trainer.variant
    assert_close(
        [got, *torch.autograd.grad(got, [variant.encoder, variant.b_enc, variant.decoder])],
        [loss, *torch.autograd.grad(loss, [p.encoder, p.b_enc, p.decoder])],
        dtype,
    )


DEFINITIONS = {each.__name__: each for each in (topk, batch_topk, matryoshka, jumprelu, gated)}
