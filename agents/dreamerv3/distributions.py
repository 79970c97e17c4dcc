"""The distributions that DreamerV3 predicts with: symlog, two-hot over 255 bins, and one-hot categoricals.

Hafner et al. 2023, arXiv 2301.04104, "Robust predictions" and "World model learning".
"""

import torch
from torch import Tensor

from rl_interp.agents.encoders import symlog

BINS, LOW, HIGH = 255, -20.0, 20.0
"""Bins of a two-hot prediction, evenly spaced in symlog space."""


def symexp(x: Tensor) -> Tensor:
    """The inverse of `symlog`."""
    return x.sign() * x.abs().expm1()


def two_hot_mean(logits: Tensor) -> Tensor:
    """The value that logits `[..., 255]` stand for, `[...]`: symexp of the mean bin, as the published package has
    it (the paper's later version takes the mean after symexp)."""
    bins = torch.linspace(LOW, HIGH, BINS, device=logits.device)
    with torch.autocast(logits.device.type, enabled=False):  # a mean of bins from -20 to 20 needs float32
        return symexp(logits.float().softmax(-1) @ bins)


def two_hot_loss(logits: Tensor, *targets: Tensor) -> Tensor:
    """Cross-entropy `[...]` of logits `[..., 255]` with the two bins next to symlog(target), weighted by nearness;
    summed over the targets `[...]`."""
    place = (symlog(torch.stack(targets, -1).float()).clamp(LOW, HIGH) - LOW) * ((BINS - 1) / (HIGH - LOW))
    below = place.floor().clamp(max=BINS - 2).nan_to_num()  # a NaN is not an index; the weights carry it to the loss
    weights = torch.cat([1 - (place - below), place - below], -1)
    index = torch.cat([below, below + 1], -1).long()
    return -(logits.float().log_softmax(-1).gather(-1, index) * weights).sum(-1)


def symlog_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance `[...]` to symlog(target), summed over the last axis."""
    distance = (prediction.float() - symlog(target.float())) ** 2
    return torch.where(distance < 1e-8, 0.0, distance).sum(-1)


def unimix(logits: Tensor, share: float) -> Tensor:
    """Log-probabilities of the softmax of logits `[..., K]` mixed with a `share` of the uniform distribution."""
    return torch.log((1 - share) * logits.float().softmax(-1) + share / logits.shape[-1])


def sample(log_probs: Tensor) -> Tensor:
    """One-hot samples `[..., K]`, through which gradients go as through the probabilities (straight through)."""
    probs = log_probs.exp()
    below = probs.detach().cumsum(-1) < _uniform(probs)  # one random number a sample, since they cost more than sums
    return _straight_through(below.sum(-1).clamp(max=probs.shape[-1] - 1), probs)


def mode(log_probs: Tensor) -> Tensor:
    """The likeliest classes as one-hot `[..., K]`, with the same gradients as `sample`."""
    return _straight_through(log_probs.argmax(-1), log_probs.exp())


def _uniform(probs: Tensor) -> Tensor:
    """Random numbers in [0, 1), `[..., 1]` for probabilities `[..., K]`."""
    return torch.rand(*probs.shape[:-1], 1, device=probs.device)


def _straight_through(index: Tensor, probs: Tensor) -> Tensor:
    drawn = one_hot(index, probs.shape[-1]).to(probs.dtype)
    return drawn + probs - probs.detach() if probs.requires_grad else drawn


def one_hot(index: Tensor, classes: int) -> Tensor:
    """float32 `[..., classes]` of int64 `[...]`. Unlike PyTorch's, it does not read the values back to check them,
    which a CUDA graph can't do."""
    zeros = torch.zeros(*index.shape, classes, device=index.device)
    return zeros.scatter_(-1, index[..., None], 1.0)


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats over the last axis: `[..., K]` to `[...]`."""
    return -(log_probs.exp() * log_probs).sum(-1)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats of independent categoricals `[..., S, K]` given by their log-probabilities, `[...]`."""
    return (p.exp() * (p - q)).sum((-2, -1))
