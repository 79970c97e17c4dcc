"""A dictionary's latents as units of an agent's graph, beside what the dictionary leaves out.

At a hook point a dictionary writes a value x as `f W_dec + b_dec + error`, with latents f = activation(x W_enc + ...)
and the error whatever is missing, so that the agent decides as before. Edges then lead from the layers before into
latents, and from latents and the error on, as in the sparse feature circuits of language models (Marks et al. 2024,
arXiv 2403.19647, section 3.1). The error is taken as it is: cutting an edge into a latent does not change it.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.core.agent import Agent
from rl_interp.core.as_one import as_one
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hook_point

VALUE, PRE, LATENTS, ERROR = ("value", "latents.pre", "latents", "error")
"""What the new hook points are called, after the old one's name and a dot, and where their modules are."""


class Dictionary(Protocol):
    """An autoencoder of values D wide, with F latents, as `rl_interp.sae.SAE` is."""

    W_enc: nn.Parameter
    """`[D, F]`."""
    b_enc: nn.Parameter
    """`[F]`."""
    W_dec: nn.Parameter
    """`[F, D]`."""
    b_dec: nn.Parameter
    """`[D]`, taken from a value before it is encoded, and given back after."""

    def activate(self, z: Tensor) -> Tensor:
        """`[..., F]` from pre-activations `[..., F]`."""
        ...


class Components(nn.Module):
    """Principal components as a dictionary without an error: the control for one that was fitted. What is exact for
    latents is exact for these, and they know no more than the variance of the values, or that and what decides."""

    def __init__(self, values: Tensor, metric: Tensor | None = None):
        """
        Args:
            values: `[N, D]`.
            metric: `[D, D]`, of what an agent decides with respect to the values; then components are those by
                which decisions vary most, the first first, and still uncorrelated. What does not vary among the values
                is in none of them.
        """
        super().__init__()
        centre = values.double().mean(0)
        _, lengths, directions = torch.linalg.svd(values.double() - centre, full_matrices=True)
        encoder, decoder = directions.T, directions
        if metric is not None:
            kept = lengths > 1e-6 * lengths[0]
            spread = lengths[kept] / len(values) ** 0.5
            to, back = directions[: len(lengths)][kept].T / spread, spread[:, None] * directions[: len(lengths)][kept]
            turned = torch.linalg.eigh(back @ metric.double() @ back.T)[1].flip(1)
            encoder, decoder = to @ turned, turned.T @ back
        self.W_enc = nn.Parameter(encoder.to(values), requires_grad=False)
        self.b_enc = nn.Parameter(values.new_zeros(encoder.shape[1]), requires_grad=False)
        self.W_dec = nn.Parameter(decoder.to(values), requires_grad=False)
        self.b_dec = nn.Parameter(centre.to(values), requires_grad=False)

    def activate(self, z: Tensor) -> Tensor:
        """All of them, as they are."""
        return z


def with_latents(agent: Agent, dictionary: Dictionary, at: str) -> Agent:
    """A copy of an agent in which the value at a hook point is made of latents and an error.

    It decides as the agent does, to rounding. Besides the agent's hook points it has, of `fc.post`,
    `fc.post.value` (what the layer gives), `fc.post.latents.pre`, `fc.post.latents` and `fc.post.error`; `fc.post` is
    their sum. The latents have the axes of the value, with latents for features.

    Raises:
        HookError: no such hook point.
        UserError: one that is no whole output of a module, or is not as wide as the dictionary (when it runs); or an
            agent whose graph is of parts that it names itself, such as a transformer.
    """
    point = hook_point(agent, at)
    if point.side != "output" or point.element is not None or point.call is not None or not point.path:
        raise UserError(
            f"{at!r} is a module's input, or a part of what it gives; latents stand where a whole output is: choose "
            "another hook point."
        )
    if agent.graph_points:
        raise UserError(
            f"the graph of {type(agent).__name__} is of parts of its own, such as {agent.graph_points[-1]}, in which "
            "latents have no place; splice the dictionary in instead (`sae.splice`)."
        )
    made = copy.deepcopy(agent)
    parent, _, name = point.path.rpartition(".")
    inner = made.get_submodule(point.path)
    setattr(made.get_submodule(parent), name, _Coded(inner, dictionary, point.feature_axis, at))
    within = f"{point.path}.inner"
    points = {}
    for each, other in agent.hook_points.items():
        if each == at:
            points |= {
                f"{at}.{part}": replace(point, path=f"{point.path}.{part}", head=None)
                for part in (VALUE, PRE, LATENTS, ERROR)
            }
            points[each] = point
        elif other.path == point.path or other.path.startswith(f"{point.path}."):
            points[each] = replace(other, path=within + other.path.removeprefix(point.path))
        else:
            points[each] = other
    made.hook_points = points
    return made


class _Coded(nn.Module):
    """A module whose output passes through a dictionary, and has the dictionary's error added."""

    def __init__(self, inner: nn.Module, dictionary: Dictionary, axis: int, at: str):
        super().__init__()
        self.inner, self.axis, self.at = inner, axis, at
        self.value, self.latents, self.error = nn.Identity(), _Latents(), _Apart(self._error)
        self.latents.pre = nn.Identity()
        # No parameters of the agent's: who trains it, or counts them, has its own.
        self._dictionary = (dictionary,)

    def forward(self, *args: Any, **named: Any) -> Tensor:
        value = self.value(self.inner(*args, **named))
        dictionary = self._dictionary[0]
        if value.shape[self.axis] != len(dictionary.b_dec) or (self.axis == -3 and value.dim() != 4):
            raise UserError(
                f"a dictionary {len(dictionary.b_dec)} wide given for {self.at!r}, whose value is "
                f"{tuple(value.shape)}, with features along axis {self.axis}; give one that was fitted there."
            )
        error = self.error(value)  # first, so that it is not computed again where latents alone are changed
        return self._decoded(self._latents_of(value, self.latents.pre, self.latents)) + error

    def _latents_of(self, value: Tensor, pre: Callable[[Tensor], Tensor], at: Callable[[Tensor], Tensor]) -> Tensor:
        dictionary = self._dictionary[0]
        z = pre(self._times(value - self._along(dictionary.b_dec), dictionary.W_enc, dictionary.b_enc))
        return at(dictionary.activate(z.movedim(self.axis, -1)).movedim(-1, self.axis))

    def _decoded(self, latents: Tensor) -> Tensor:
        return self._times(latents, self._dictionary[0].W_dec, self._dictionary[0].b_dec)

    def _error(self, value: Tensor) -> Tensor:
        return value - self._decoded(self._latents_of(value, _same, _same))

    def _times(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x W + b along the axis of features: as a layer would compute it, so that its terms are edges."""
        if self.axis == -1:
            return F.linear(x, weight.T, bias)
        return F.conv2d(x, weight.T[:, :, None, None], bias)

    def _along(self, bias: Tensor) -> Tensor:
        return bias if self.axis == -1 else bias[:, None, None]


class _Latents(nn.Identity):
    """The latents, and under `pre` what they are before the activation."""

    pre: nn.Module


class _Apart(nn.Module):
    """A function of one value, whose inside is nobody's edge."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self._function = as_one(function)

    def forward(self, value: Tensor) -> Tensor:
        return self._function(value)


def _same(value: Tensor) -> Tensor:
    return value
