"""What a saliency map explains: one number a state, named explicitly.

A target is prepared on the unperturbed observations, where "the chosen action" is settled once, and then evaluated on
as many perturbed ones as needed.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.check_agent import ADVICE, alike, taking_floats
from rl_interp.core.errors import NotFiniteError, UserError, unknown
from rl_interp.core.hooks import Cache, run_with_cache

Score = Callable[[PolicyOutput, Tensor | None], Tensor]
"""`(output, value at the target's hook point as rows [B, positions, features]) -> [B]`."""


class Target(Protocol):
    """`prepare` sees the output on the unperturbed observations and returns how to score others.

    A target whose maps can't say for and against, since no perturbation raises it, has an attribute `signed` that is
    False."""

    @property
    def at(self) -> str | None:
        """Hook point whose value the score needs, if any."""
        ...

    @property
    def name(self) -> str: ...

    def prepare(self, output: PolicyOutput) -> Score: ...


@dataclass(frozen=True)
class Preference:
    """The Q-value (or logit) of one action; of continuous ones, one dimension of the mean."""

    action: int
    label: str = ""
    at: str | None = None

    @property
    def name(self) -> str:
        return self.label or f"action {self.action}"

    def prepare(self, output: PolicyOutput) -> Score:
        return lambda out, value: out.preferences[..., self.action]


@dataclass(frozen=True)
class Chosen:
    """The Q-value (or logit) of the action that is greedy on the unperturbed observation. Of continuous actions, how
    far the action goes the same way as on the unperturbed observation, a · a₀ / ‖a₀‖, in the environment's units."""

    at: str | None = None
    name: str = "chosen action"

    def prepare(self, output: PolicyOutput) -> Score:
        if _is_continuous(output):
            way = F.normalize(output.preferences, dim=-1)
            return lambda out, value: (out.preferences * way).sum(-1)
        chosen = output.preferences.argmax(-1, keepdim=True)
        return lambda out, value: out.preferences.gather(-1, chosen.expand(*out.preferences.shape[:-1], 1))[..., 0]


@dataclass(frozen=True)
class Advantage:
    """The chosen action's Q-value (or logit) minus the mean over actions: what speaks for it, not for the state.

    Actions that the unperturbed observation rules out, by -inf, are left out. Continuous actions have no mean over
    actions, so of these it is what `Chosen` is.
    """

    at: str | None = None
    name: str = "advantage"

    def prepare(self, output: PolicyOutput) -> Score:
        score, possible = Chosen().prepare(output), output.preferences.isfinite()
        if _is_continuous(output):
            return score
        count = possible.sum(-1)
        return lambda out, value: score(out, value) - out.preferences.where(possible, 0).sum(-1) / count


@dataclass(frozen=True)
class Value:
    """The state's value: the value head, or max_a Q(s, a)."""

    at: str | None = None
    name: str = "value"

    def prepare(self, output: PolicyOutput) -> Score:
        return lambda out, value: out.state_value


@dataclass(frozen=True)
class LogProbability:
    """The log-probability of an action under the policy; by default of the likeliest on the unperturbed observation."""

    action: int | None = None
    label: str = ""
    at: str | None = None

    @property
    def name(self) -> str:
        return "log-probability" + (f" of {self.label or self.action}" if self.action is not None else "")

    def prepare(self, output: PolicyOutput) -> Score:
        if output.logits is None:
            raise UserError(
                f"the {self.name} is to be explained, and the agent has no policy's logits; use chosen or advantage."
            )
        likeliest = output.logits.argmax(-1, keepdim=True)
        action = likeliest if self.action is None else torch.full_like(likeliest, self.action)

        def score(out: PolicyOutput, value: Tensor | None) -> Tensor:
            assert out.logits is not None
            logits = out.logits if out.logits.dtype == torch.float64 else out.logits.float()
            return logits.log_softmax(-1).gather(-1, action.expand(*out.logits.shape[:-1], 1))[..., 0]

        return score


@dataclass(frozen=True)
class PolicyChange:
    """−½‖p − p₀‖², p being the logits (or Q-values) and p₀ those on the unperturbed observation. Its drop under a
    perturbation is the saliency of Greydanus et al. 2018 (arXiv 1711.00138, eq. 2), which has no sign. Actions that the
    unperturbed observation rules out, by -inf, are left out."""

    at: str | None = None
    name: str = "policy change"
    signed: ClassVar[bool] = False

    def prepare(self, output: PolicyOutput) -> Score:
        before = output.preferences
        possible = before.isfinite()
        return lambda out, value: -(out.preferences - before).where(possible, 0).square().sum(-1) / 2


@dataclass(frozen=True)
class ValueChange:
    """−½(V − V₀)², V₀ being the state's value on the unperturbed observation (ibid., eq. 3)."""

    at: str | None = None
    name: str = "value change"
    signed: ClassVar[bool] = False

    def prepare(self, output: PolicyOutput) -> Score:
        before = output.state_value
        return lambda out, value: -(out.state_value - before).square() / 2


@dataclass(frozen=True)
class Feature:
    """One feature of the value at a hook point, e.g. of a sparse autoencoder's `encode`; of a spatial point, its
    sum over positions."""

    at: str
    encode: Callable[[Tensor], Tensor] = field(repr=False)
    index: int

    @property
    def name(self) -> str:
        return f"feature {self.index}"

    def prepare(self, output: PolicyOutput) -> Score:
        def score(out: PolicyOutput, value: Tensor | None) -> Tensor:
            assert value is not None
            features = self.encode(value.flatten(0, 1))
            if self.index >= features.shape[1]:
                raise UserError(f"{self.name} asked for at {self.at!r}, which has 0 to {features.shape[1] - 1}.")
            return features[:, self.index].unflatten(0, value.shape[:2]).sum(1)

        return score


def default_target(continuous: bool) -> str:
    """The name of what a map explains unless something else is asked for, of actions of this kind."""
    return "chosen" if continuous else "advantage"


def parse_target(text: str, action_names: Sequence[str], others: Sequence[str] = ()) -> Target:
    """`chosen`, `advantage`, `log-probability`, `value`, `policy-change`, `value-change`, `q:ACTION` or `logp:ACTION`
    with an action's name, or `unit:HOOK:N`.

    Args:
        others: what the caller knows besides, to be named where a target is unknown.

    Raises:
        UserError: it is none of these, or there is no such action.
    """
    simple: dict[str, Target] = {
        "chosen": Chosen(), "advantage": Advantage(), "log-probability": LogProbability(), "value": Value(),
        "policy-change": PolicyChange(), "value-change": ValueChange(),
    }  # fmt: skip
    if text in simple:
        return simple[text]
    kind, _, rest = text.partition(":")
    if kind == "unit":
        hook, _, index = rest.rpartition(":")
        if not hook or not index.isdecimal():
            raise UserError(f"target {text!r} given; a unit is named as unit:HOOK:N, such as unit:deter:12.")
        return Feature(hook, lambda values: values, int(index))
    if kind not in ("q", "logp"):
        raise UserError(unknown("saliency target", text, [*simple, "q:ACTION", "logp:ACTION", "unit:HOOK:N", *others]))
    if rest not in action_names:
        raise UserError(unknown("action", rest, action_names))
    return (Preference if kind == "q" else LogProbability)(list(action_names).index(rest), rest)


def _is_continuous(output: PolicyOutput) -> bool:
    return output.q_values is None and output.logits is None


def prepare(agent: Agent, obs: Tensor, state: State, target: Target) -> tuple[Score, PolicyOutput]:
    """Settle the target on the unperturbed `obs [B, ...]`; returns how to score others, and the agent's output.

    Raises:
        UserError: preferences that are NaN or infinite.
    """
    with torch.no_grad():
        out = agent.step(obs, state)
    if not out.preferences.amax(-1).isfinite().all():
        raise NotFiniteError("the agent's preferences")
    return target.prepare(out), out


def evaluate(
    agent: Agent, obs: Tensor, state: State, target: Target, score: Score, decided: PolicyOutput | None = None
) -> Tensor:
    """`[B]`: a prepared target on observations `[B, ...]`.

    Args:
        decided: the agent's output on the same observations as they come from the environment. Given where `obs` are
            the unperturbed ones in the form in which perturbed ones are fed, which must not change the output.

    Raises:
        UserError: it does change it, so that the map would be of what is as good as a different agent; or the agent
            can't take that form.
    """
    cache, name = None, target.at
    with nullcontext() if decided is None else taking_floats():
        if name is None:
            out = agent.step(obs, state)
        else:
            out, cache = run_with_cache(agent, obs, state, names=[name])
    if decided is not None:
        require_same(out, decided, obs.dtype)
    if name is None or cache is None:
        return score(out, None)
    return score(out, at_positions(agent, name, cache, len(obs)))


def require_same(out: PolicyOutput, decided: PolicyOutput, fed: torch.dtype) -> None:
    """Raise a `UserError` where an agent decides differently on observations as they were fed than as they came."""
    if not alike(out.preferences.detach(), decided.preferences):
        raise UserError(
            f"the agent decides differently on observations as {str(fed).removeprefix('torch.')}s, which this method "
            f"feeds, than as they come from the environment: {ADVICE}"
        )


def at_positions(agent: Agent, name: str, cache: Cache, batch: int) -> Tensor:
    """What a hook point was last, as rows `[B, positions, features]`."""
    point = agent.hook_points[name]
    value = point.newest(cache[name])
    return value.movedim(point.feature_axis, -1).reshape(batch, -1, value.shape[point.feature_axis])
