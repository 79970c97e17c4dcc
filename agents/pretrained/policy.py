"""Policies of Stable-Baselines3 and of CleanRL as one agent, since both build them of the same parts.

    observation ── parts: normalised, scaled, through convolutions ── (LSTM) ── hidden layers ── actions
                                                                  └── (LSTM) ── hidden layers ── value

Layers with what their hook points are called stand in `layers.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from rl_interp.agents.impala.network import HookedLSTM, lstm_hook_points
from rl_interp.agents.pretrained.layers import Hidden, Input, Parts
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, PreferenceKind, State
from rl_interp.core.envs import EnvConfig

Output = Literal["q", "quantiles", "atoms", "logits", "gaussian", "gsde"]
_PREFERENCES: dict[Output, PreferenceKind] = {
    "q": "q_values", "quantiles": "q_values", "atoms": "q_values",
    "logits": "logits",
    "gaussian": "mean", "gsde": "mean",
}  # fmt: skip


@dataclass(frozen=True)
class PolicyConfig:
    """What a policy is made of, besides its weights."""

    env: EnvConfig
    """The environment and its conventions."""
    algorithm: str
    """What trained it, e.g. "ppo"."""
    output: Output
    """What the last layer gives: Q-values, quantiles (Dabney et al. 2018) or probabilities of atoms (Bellemare et al.
    2017) of each action's return, a policy's logits, or the means of a Gaussian whose deviations are weights or, in
    gSDE (Raffin et al. 2021), depend on the last hidden layer."""
    actions: tuple[int, ...]
    """How many there are; of several that are chosen at once, of each; of continuous ones, how many dimensions."""
    inputs: tuple[Input, ...]
    """The parts of an observation, in their order."""
    hidden: tuple[int, ...] = ()
    """Widths of the layers before the actions."""
    value_hidden: tuple[int, ...] | None = None
    """Widths of the layers before the value; None for a network without one."""
    activation: str = "Tanh"
    """Of both, as in `torch.nn`."""
    support: int = 1
    """Quantiles or atoms of an action's return."""
    own_value_parts: bool = False
    """Whether the value has convolutions of its own."""
    lstm: int = 0
    """Width of the LSTM; 0 for a policy without memory."""
    lstm_layers: int = 1
    """LSTMs, each of which reads the one before."""
    value_memory: Literal["shared", "own", "none"] = "shared"
    """Whether the value reads the policy's LSTM, one of its own, or a linear layer in its place."""


class Policy(Agent):
    """Q-values, logits, or means and deviations, from observations `[T, B, ...]`; with a value `[T, B]` where it has
    one. Its state is the hidden and cell state `[B, D]` of each LSTM, the value's last."""

    def __init__(self, config: PolicyConfig):
        super().__init__()
        self.config = config
        self.observation = config.env.observation_kind
        self.preference_kind = _PREFERENCES[config.output]
        self.parts = Parts(config.inputs)
        self.value_parts = Parts(config.inputs) if config.own_value_parts else None
        features, memory = self.parts.width, config.lstm or self.parts.width
        own = bool(config.lstm) and config.value_memory == "own"
        self.lstm = _lstms(features, config.lstm, config.lstm_layers) if config.lstm else None
        self.value_lstm = _lstms(features, config.lstm, config.lstm_layers) if own else None
        self.value_linear = nn.Linear(features, config.lstm) if config.lstm and config.value_memory == "none" else None
        outputs = sum(config.actions) * config.support
        self.policy = Hidden(memory, config.hidden, outputs, config.activation)
        self.value = None if config.value_hidden is None else Hidden(memory, config.value_hidden, 1, config.activation)
        self.q = nn.Identity() if config.support > 1 else None
        if config.output == "atoms":
            self.register_buffer("atoms", torch.empty(config.support))
        if config.output == "gaussian":
            self.log_std = nn.Parameter(torch.empty(outputs))
        if config.output == "gsde":
            self.log_std = nn.Parameter(torch.empty(self.policy.out.in_features, outputs))
        self.hook_points = dict(self._points())

    def initial_state(self, batch: int) -> State:
        cells = (*(self.lstm or ()), *(self.value_lstm or ()))
        zeros = torch.zeros(batch, self.config.lstm, device=self.device)
        return tuple(zeros.clone() for _ in range(2 * len(cells)))

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        time, batch = obs.shape[:2]
        flat = obs.flatten(0, 1)
        x = self.parts(flat)
        value_x = x if self.value_parts is None else self.value_parts(flat)
        if self.lstm is not None:
            state = state or self.initial_state(batch)
            half = 2 * len(self.lstm)
            x, own = _remember(self.lstm, x.unflatten(0, (time, batch)), state[:half], first)
            theirs: State = ()
            if self.value_lstm is not None:
                value_x, theirs = _remember(self.value_lstm, value_x.unflatten(0, (time, batch)), state[half:], first)
            elif self.value_linear is not None:
                value_x = self.value_linear(value_x)
            else:
                value_x = x
            state = (*own, *theirs)
        heads = self._read(x)
        if self.value is not None:
            heads["value"] = self.value(value_x)[..., 0]
        return PolicyOutput(state, **{name: head.unflatten(0, (time, batch)) for name, head in heads.items()})

    def _read(self, x: Tensor) -> dict[str, Tensor]:
        """The last layer's outputs as what they mean."""
        hidden = self.policy.hidden(x)
        out, kind = self.policy.out(hidden), self.config.output
        if kind == "q":
            return {"q_values": out}
        if kind == "quantiles":
            assert self.q is not None
            return {"q_values": self.q(out.unflatten(-1, (self.config.support, -1)).mean(-2))}
        if kind == "atoms":
            assert self.q is not None
            assert isinstance(self.atoms, Tensor)
            return {"q_values": self.q(out.unflatten(-1, (-1, self.config.support)).softmax(-1) @ self.atoms)}
        if kind == "logits":
            return {"logits": joint(out, self.config.actions)}
        if kind == "gaussian":
            return {"mean": out, "std": self.log_std.exp().expand_as(out)}
        # Of an exploration matrix that is drawn anew each step; 1e-6 as in Stable-Baselines3.
        return {"mean": out, "std": (hidden.square() @ self.log_std.exp().square() + 1e-6).sqrt()}

    def _points(self) -> Iterator[tuple[str, HookPoint]]:
        what = "policy" if self.value is not None else "q"
        joined = self.config.output == "logits" and len(self.config.actions) > 1
        exact = self.config.output in ("q", "logits", "gaussian", "gsde") and not joined
        head = "policy.out" if exact else None
        plain = not self.config.hidden  # what comes before then feeds the last layer
        yield from _within("parts", self.parts.points(head if plain and self.lstm is None else None))
        if self.value_parts is not None:
            yield from _within("value_parts", self.value_parts.points(None), "value.")
        for prefix, lstms in (("lstm", self.lstm), ("value.lstm", self.value_lstm)):
            for i in range(len(lstms or ())):
                last = prefix == "lstm" and lstms is not None and i + 1 == len(lstms)
                number = str(i + 1) if lstms is not None and len(lstms) > 1 else ""
                path = f"{'lstm' if prefix == 'lstm' else 'value_lstm'}.{i}"
                for name, point in lstm_hook_points(path, head if last and plain else None).items():
                    yield name.replace("lstm", prefix + number, 1), point
        yield from _within("policy", self.policy.points(head), f"{what}.")
        spread = {"quantiles": "q.quantiles", "atoms": "q.atoms"}.get(self.config.output)
        yield spread or what, HookPoint("policy.out", "B D")
        if spread:
            yield "q", HookPoint("q", "B D")
        if self.value is not None:
            yield from _within("value", self.value.points(None), "value.")
            yield "value", HookPoint("value.out", "B D")


def make_agent(config: PolicyConfig) -> Policy:
    """The policy of a configuration, before it gets its weights."""
    return Policy(config)


def joint(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Logits `[..., prod(sizes)]` of joint actions, the last choice the fastest, from those of independent choices side
    by side, `[..., sum(sizes)]`."""
    first, *others = logits.split(list(sizes), -1)
    for other in others:
        first = (first[..., :, None] + other[..., None, :]).flatten(-2)
    return first


def _lstms(inputs: int, width: int, layers: int) -> nn.ModuleList:
    return nn.ModuleList(HookedLSTM(width if i else inputs, width) for i in range(layers))


def _remember(
    lstms: nn.ModuleList, x: Tensor, state: Sequence[Tensor], first: Tensor | None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Hidden states `[T * B, D]` of the last of several LSTMs, and the state of all, from `x [T, B, ...]`."""
    after: tuple[Tensor, ...] = ()
    for i, lstm in enumerate(lstms):
        x, cell = lstm(x, tuple(state[2 * i : 2 * i + 2]), first)
        after = (*after, *cell)
    return x.flatten(0, 1), after


def _within(path: str, points: Iterator[tuple[str, HookPoint]], prefix: str = "") -> Iterator[tuple[str, HookPoint]]:
    for name, point in points:
        yield prefix + name, replace(point, path=f"{path}.{point.path}")
