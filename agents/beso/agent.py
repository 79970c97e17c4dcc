"""BESO as an agent: a goal-conditioned policy that samples its actions by denoising (Reuss et al. 2023, "Goal-
conditioned imitation learning using score-based diffusion policies", arXiv 2304.02532).

The random numbers that an action is sampled with follow from a key in the agent's state, which goes on with each
action; so a decision follows from observation and state, and two runs can differ by their goal, or an intervention,
alone.

All actions of a window are denoised together, and the last is taken. Within a step, each pass of the network is a tick
of hooks: in the phase `denoise` with the goal, and in `denoise_unconditional` without it, where guidance needs both.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

from rl_interp.agents.beso.config import BESOConfig
from rl_interp.agents.beso.diffusion import SIGMA_DATA, Sampling
from rl_interp.agents.beso.network import Cloner, Denoiser
from rl_interp.agents.beso.random import following, keys, normals, uniforms
from rl_interp.agents.transformer.network import Point
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State, TickedPoints
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import phase, tick

CONDITIONAL, UNCONDITIONAL = "denoise", "denoise_unconditional"
"""Phases of hooks."""


class Scaling(nn.Module):
    """Between the environment's units and the network's: states standardised, actions of standard deviation 0.5."""

    def __init__(self, states: int, actions: int):
        super().__init__()
        for name, size in (("state", states), ("action", actions)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))

    state_mean: Tensor
    state_std: Tensor
    action_mean: Tensor
    action_std: Tensor

    def fit(self, states: Tensor, actions: Tensor) -> None:
        """From all states `[N, S]` and actions `[N, A]` of the demonstrations."""
        for name, values in (("state", states), ("action", actions)):
            getattr(self, f"{name}_mean").copy_(values.mean(0))
            getattr(self, f"{name}_std").copy_(values.std(0).clamp(min=1e-6))

    def states(self, states: Tensor) -> Tensor:
        """As the network is given them."""
        return (states - self.state_mean) / self.state_std

    def scaled(self, actions: Tensor) -> Tensor:
        """As the network is given them."""
        return (actions - self.action_mean) / self.action_std * SIGMA_DATA

    def actions(self, scaled: Tensor) -> Tensor:
        """In the environment's units."""
        return scaled / SIGMA_DATA * self.action_std + self.action_mean


class GoalPolicy(Agent):
    """A policy that sees the last states of an episode and its goal, in an environment that shows both side by side.

    Its state is the window `[B, K, S]` of states, oldest first, how many of them there are `[B]`, and the key of its
    random numbers `[B]`, both int64.
    """

    observation = "vector"

    def __init__(self, config: BESOConfig):
        super().__init__()
        self.config, goals = config, config.env.goals
        assert goals is not None
        self.window, self.goals, self.size = config.window, goals, len(goals.state)
        self.scaling = Scaling(self.size, len(config.env.action_names))

    def initial_state(self, batch: int) -> State:
        count = torch.zeros(batch, dtype=torch.int64, device=self.device)
        seen = torch.zeros(batch, self.window, self.size, device=self.device)
        return seen, count, keys(torch.arange(batch, device=self.device))

    def after_action(self, state: State, actions: Tensor) -> State:
        seen, number, key = state
        return seen, number, following(key)

    def reseeded(self, state: State, rng: np.random.Generator) -> State:
        seen, number, key = state
        drawn = rng.integers(-(2**63), 2**63 - 1, size=len(key))
        return seen, number, torch.from_numpy(drawn).to(key.device)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        seen, number, key = state or self.initial_state(len(obs))
        if first is not None:
            number = number.masked_fill(first, 0)
        states, goal = self.split(obs)
        # Windows that are full lose their oldest state.
        full = number == self.window
        seen = torch.where(full[:, None, None], seen.roll(-1, 1), seen)
        at = number - full.long()
        seen = torch.where(_one_hot(at, self.window)[:, :, None], states[:, None], seen)
        scaled = self.decide(self.scaling.states(seen), goal, key, at)
        return replace(scaled, state=(seen, at + 1, key))

    def decide(self, states: Tensor, goal: Tensor, key: Tensor, at: Tensor) -> PolicyOutput:
        """What to do in the `at`-th state `[B]` of windows `[B, K, S]`, for goals `[B, S]`, both as the network is
        given them."""
        raise NotImplementedError

    def split(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """States `[B, S]` in the environment's units, and goals `[B, S]` as the network is given them."""
        env = self.config.env
        if obs.shape[1:] != env.observation_shape:
            raise UserError(
                f"observations of {obs.shape[-1]} numbers given; this agent is of {env.id}, which shows "
                f"{env.observation_shape[0]}, {len(self.goals.goal)} of them the goal."
            )
        obs = obs.float()
        return obs[..., list(self.goals.state)], self.goal_states(obs[..., list(self.goals.goal)])

    def goal_states(self, goals: Tensor) -> Tensor:
        """Goals `[B, G]` in the environment's units as states `[B, S]` that the network is given: 0, the mean, where
        nothing is asked."""
        if goals.shape[-1] != len(self.goals.achieved):
            raise UserError(
                f"goals of {goals.shape[-1]} numbers given; those of {self.config.env.id} have "
                f"{len(self.goals.achieved)}."
            )
        places = torch.tensor(self.goals.achieved, device=goals.device)
        known = (goals - self.scaling.state_mean[places]) / self.scaling.state_std[places]
        return goals.new_zeros(*goals.shape[:-1], self.size).index_copy(-1, places, known)


class BESO(GoalPolicy):
    """Actions `[B, A]`, sampled by denoising."""

    preference_kind = "actions"

    def __init__(self, config: BESOConfig):
        super().__init__(config)
        self.denoiser = Denoiser(config.shape, self.size, len(config.env.action_names), config.window)
        self.guided = Point()
        self.sampling = config.sampling

    @property
    def sampling(self) -> Sampling:
        """How actions are sampled; may be set to another one."""
        return self._sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self.hook_points = _points(self.config, sampling)

    def decide(self, states: Tensor, goal: Tensor, key: Tensor, at: Tensor) -> PolicyOutput:
        actions = self.sample(states, goal, key, at)
        return PolicyOutput(actions=self.scaling.actions(actions[torch.arange(len(at), device=at.device), at]))

    def sample(self, states: Tensor, goal: Tensor, key: Tensor, at: Tensor | None = None) -> Tensor:
        """Actions `[B, K, A]` of windows `[B, K, S]`, in the network's units, by the random numbers of keys `[B]`. `at`
        is as in `decide`, for hooks."""
        shape = (self.window, len(self.config.env.action_names))
        ticks = count()

        def denoise(noised: Tensor, sigma: float) -> Tensor:
            with tick(next(ticks)):
                return self.guided_by(noised, sigma, states, goal, at)

        return self.sampling.sample(denoise, normals(key, 0, *shape), lambda step: normals(key, step + 1, *shape))

    def guided_by(self, noised: Tensor, sigma: float, states: Tensor, goal: Tensor, at: Tensor | None = None) -> Tensor:
        """D_u + λ (D_c − D_u), of which only what is needed is computed."""
        level, guidance = noised.new_full((len(noised),), sigma), self.sampling.guidance
        free = told = noised
        if guidance != 1:
            with phase(UNCONDITIONAL):
                free = self.denoiser(noised, level, states, torch.zeros_like(goal), at)
        with phase(CONDITIONAL):
            if guidance != 0:
                told = self.denoiser(noised, level, states, goal, at)
            return self.guided(free if guidance == 0 else told if guidance == 1 else free + guidance * (told - free))


class ClonedMean(GoalPolicy):
    """The mean action `[B, A]` of the demonstrations, learned by its squared error."""

    preference_kind = "mean"

    def __init__(self, config: BESOConfig):
        super().__init__(config)
        self.network = Cloner(config.shape, self.size, len(config.env.action_names), config.window)
        self.hook_points = _cloners_points(config)

    def decide(self, states: Tensor, goal: Tensor, key: Tensor, at: Tensor) -> PolicyOutput:
        said = self.network(states, goal)[torch.arange(len(at), device=at.device), at]
        return PolicyOutput(mean=self.scaling.actions(said))


class ClonedMixture(GoalPolicy):
    """A sample `[B, A]` of a mixture of Gaussians, whose likelihood of the demonstrations was maximised."""

    preference_kind = "actions"

    def __init__(self, config: BESOConfig):
        super().__init__(config)
        self.components, self.actions = config.components, len(config.env.action_names)
        outputs = config.components * (1 + 2 * self.actions)
        self.network = Cloner(config.shape, self.size, outputs, config.window)
        self.hook_points = _cloners_points(config)

    def mixture(self, states: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights `[B, K, M]`, means and log-deviations `[B, K, M, A]` of M Gaussians, in the network's units."""
        out = self.network(states, goal).unflatten(-1, (self.components, -1))
        return out[..., 0].log_softmax(-1), out[..., 1 : 1 + self.actions], out[..., 1 + self.actions :].clamp(-5, 2)

    def decide(self, states: Tensor, goal: Tensor, key: Tensor, at: Tensor) -> PolicyOutput:
        rows = torch.arange(len(at), device=at.device)
        weights, means, spreads = (each[rows, at] for each in self.mixture(states, goal))
        below = weights.double().exp().cumsum(-1) < uniforms(key, 0, 1)
        which = below.sum(-1).clamp(max=self.components - 1)
        drawn = means[rows, which] + spreads[rows, which].exp() * normals(key, 1, self.actions)
        return PolicyOutput(actions=self.scaling.actions(drawn))


KINDS: Mapping[str, type[GoalPolicy]] = {"diffusion": BESO, "mse": ClonedMean, "mixture": ClonedMixture}


def make_agent(config: BESOConfig) -> GoalPolicy:
    """The untrained agent of a configuration."""
    return KINDS[config.objective](config)


def _one_hot(at: Tensor, size: int) -> Tensor:
    return at[:, None] == torch.arange(size, device=at.device)


def _cloners_points(config: BESOConfig) -> Mapping[str, HookPoint]:
    points = Cloner.points(config.shape)
    return {name: replace(point, path=f"network.{point.path}") for name, point in points.items()}


def _points(config: BESOConfig, sampling: Sampling) -> TickedPoints:
    """Each of the denoiser's with the goal, and without, as far as both are computed, and what comes of them."""
    points = {}
    for prefix, when, guidance in (("", CONDITIONAL, 0), ("unconditional.", UNCONDITIONAL, 1)):
        if sampling.guidance != guidance:
            for name, point in Denoiser.points(config.shape).items():
                points[prefix + name] = _denoising(replace(point, path=f"denoiser.{point.path}", phase=when))
    points["guided"] = _denoising(HookPoint("guided", "B S D", phase=CONDITIONAL))
    return TickedPoints(points, len(sampling.levels))


def _denoising(point: HookPoint) -> HookPoint:
    return replace(point, axes=f"T N {point.axes}", kind="recurrent")
