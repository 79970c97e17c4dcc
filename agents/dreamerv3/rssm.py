"""The recurrent state-space model: a GRU's state and 32 categoricals of 32 classes (arXiv 2301.04104, "World model").

The latent is `deter [B, D]`, the GRU's state, and `stoch [B, S·K]`, one-hot samples side by side (unit s·K + k is
class k of categorical s): of the posterior, which has seen the observation, or of the prior, which imagines it.

What does not depend on the latent (the encoder, the products of embeddings and of actions) is computed for all steps
at once, and the prior after the loop.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.dreamerv3 import distributions
from rl_interp.agents.dreamerv3.networks import Dense, Points, normal_init, to_compute, uniform_init
from rl_interp.agents.dreamerv3.norm import LayerNorm
from rl_interp.core.agent import HookPoint


class Latent(NamedTuple):
    """`deter [..., D]` and `stoch [..., S·K]`."""

    deter: Tensor
    stoch: Tensor

    @property
    def features(self) -> Tensor:
        """Both in one vector, `[..., D + S·K]`: what every head sees, in the type that heads compute in."""
        return torch.cat([to_compute(part) for part in self], -1)


class RSSM(nn.Module):
    """Steps of the latent.

    Args:
        embed: width of an encoded observation.
        actions: how many there are.
        mix: share of the uniform distribution in every categorical.
    """

    def __init__(self, embed: int, actions: int, deter: int, units: int, stoch: int, classes: int, mix: float = 0.01):
        super().__init__()
        self.width, self.shape = deter, (stoch, classes)
        flat = stoch * classes
        self.img_in = Dense(flat + actions, units)
        self.gru = _GRU(units, deter)
        self.img_out, self.img_stats = Dense(deter, units), uniform_init(nn.Linear(units, flat))
        self.obs_out, self.obs_stats = Dense(deter + embed, units), uniform_init(nn.Linear(units, flat))
        self.initial_deter = nn.Parameter(torch.zeros(deter))
        # What follows has no weights: places where the latent and its distributions can be read and changed.
        self.prior, self.posterior = _Categoricals(stoch, classes, mix), _Categoricals(stoch, classes, mix)
        self.deter, self.stoch = nn.Identity(), nn.Identity()

    @staticmethod
    def points(path: str) -> Points:
        def recurrent(name: str, module: str, side: Literal["input", "output"] = "output") -> tuple[str, HookPoint]:
            return name, HookPoint(f"{path}.{module}", "T B D", "recurrent", side)

        return [
            recurrent("deter", "deter"),
            recurrent("stoch", "stoch"),
            ("prior", HookPoint(f"{path}.prior", "B S K", "categorical")),
            ("posterior", HookPoint(f"{path}.posterior", "B S K", "categorical")),
            recurrent("rssm.reset", "gru.reset_gate"),
            recurrent("rssm.candidate", "gru.candidate"),
            recurrent("rssm.update", "gru.update_gate"),
            recurrent("rssm.img_in.pre", "img_in.act", "input"),
            recurrent("rssm.img_in.post", "img_in.act"),
            recurrent("rssm.obs_out.pre", "obs_out.act", "input"),
            recurrent("rssm.obs_out.post", "obs_out.act"),
            *Dense.points("rssm.img_out", f"{path}.img_out"),
        ]

    def initial(self, batch: int) -> Latent:
        """The learned state before an episode: tanh of a vector, and the prior's mode there."""
        deter = self.initial_deter.tanh().expand(1, -1)
        # The layers themselves and not the modules: hooks see the latents of an episode, not what comes before it.
        norm = self.img_out.norm
        hidden = F.linear(deter, self.img_out.linear.weight)
        hidden = F.silu(F.layer_norm(hidden, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        logits = F.linear(hidden, self.img_stats.weight, self.img_stats.bias).unflatten(-1, self.shape)
        stoch = distributions.mode(logits.detach()).flatten(1)
        return Latent(deter.expand(batch, -1), stoch.expand(batch, -1))

    def packing(self, prefix: str = "") -> dict[str, tuple[int, DTypeLike]]:
        """Names, widths and dtypes of a latent as a replay keeps it: `deter`, which lies within [-1, 1], and of `stoch`
        each categorical's class."""
        return {f"{prefix}deter": (self.width, np.float16), f"{prefix}stoch": (self.shape[0], np.uint8)}

    def packed(self, latent: Latent, prefix: str = "") -> dict[str, NDArray[Any]]:
        """The latent so: `deter [..., D]` and `stoch [..., S]`."""
        classes = latent.stoch.unflatten(-1, self.shape).argmax(-1)
        arrays = latent.deter.float().cpu().numpy(), classes.to(torch.uint8).cpu().numpy()
        return dict(zip(self.packing(prefix), arrays, strict=True))

    def unpacked(self, deter: Tensor, classes: Tensor) -> Latent:
        """The latent that was `packed`; `classes` int64."""
        return Latent(deter, distributions.one_hot(classes, self.shape[1]).flatten(-2))

    def observe(
        self, embed: Tensor, actions: Tensor, first: Tensor, latent: Latent, greedy: bool = False
    ) -> tuple[Latent, Tensor]:
        """Follow observations through time.

        Args:
            embed: `[T, B, E]`.
            actions: one-hot, `[T, B, A]`: each the one that led to its observation.
            first: `[T, B]`; where it is set, the latent before is the initial one, and no action led here.
            greedy: take the posterior's mode instead of a sample.

        Returns:
            The latents `[T, B, ...]`, and the posterior's log-probabilities `[T, B, S, K]`.
        """
        initial = self.initial(1)
        draw = distributions.mode if greedy else distributions.sample
        # Products of actions and embeddings do not depend on the latent, so they are computed for all steps at once.
        w_stoch, w_action = to_compute(self.img_in.linear.weight).split([latent.stoch.shape[-1], actions.shape[-1]], 1)
        w_deter, w_embed = to_compute(self.obs_out.linear.weight).split([self.width, embed.shape[-1]], 1)
        again = first[..., None]
        from_action = F.linear(actions * ~again, w_action)
        from_embed = F.linear(embed, w_embed)
        deter, stoch = latent
        deters, stochs, posteriors = [], [], []
        for t in range(len(embed)):
            # An episode begins with the initial latent.
            deter = torch.where(again[t], initial.deter, deter)
            stoch = torch.where(again[t], initial.stoch, stoch)
            # The GRU steps by the last latent and action; the posterior adds what is seen.
            x = self.img_in.finish(F.linear(stoch, w_stoch) + from_action[t])
            deter = self.deter(self.gru(x, deter))
            hidden = self.obs_out.finish(F.linear(deter, w_deter) + from_embed[t])
            log_probs = self.posterior(self.obs_stats(hidden))
            stoch = self.stoch(draw(log_probs).flatten(1))
            deters.append(deter)
            stochs.append(stoch)
            posteriors.append(log_probs)
        return Latent(torch.stack(deters), torch.stack(stochs)), torch.stack(posteriors)

    def prior_of(self, deter: Tensor) -> Tensor:
        """The prior's log-probabilities `[..., S, K]` where the GRU's state is `deter [..., D]`."""
        flat = self.prior(self.img_stats(self.img_out(deter.flatten(0, -2))))
        return flat.unflatten(0, deter.shape[:-1])

    def imagine(self, latent: Latent, action: Tensor) -> Latent:
        """One step without an observation; `action [B, A]` one-hot."""
        x = self.img_in(torch.cat([latent.stoch, action], -1))
        deter = self.deter(self.gru(x, latent.deter))
        return Latent(deter, self.stoch(distributions.sample(self.prior_of(deter)).flatten(1)))


class _GRU(nn.Module):
    """A GRU whose three gates come from one layer-normed product, and whose update gate leans to keeping."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.linear = normal_init(nn.Linear(inputs + width, 3 * width, bias=False))
        self.norm = LayerNorm(3 * width)
        self.reset_gate, self.candidate, self.update_gate = nn.Sigmoid(), nn.Tanh(), nn.Sigmoid()

    def forward(self, x: Tensor, deter: Tensor) -> Tensor:
        reset, candidate, update = self.norm(self.linear(torch.cat([deter, x.to(deter.dtype)], -1))).chunk(3, -1)
        candidate = self.candidate(self.reset_gate(reset) * candidate)
        update = self.update_gate(update - 1)
        return update * candidate + (1 - update) * deter


class _Categoricals(nn.Module):
    """Log-probabilities `[B, S, K]` from logits `[B, S·K]`."""

    def __init__(self, stoch: int, classes: int, mix: float):
        super().__init__()
        self.shape, self.mix = (stoch, classes), mix

    def forward(self, logits: Tensor) -> Tensor:
        return distributions.unimix(logits.unflatten(-1, self.shape), self.mix)
