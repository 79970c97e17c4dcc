"""Training BESO, and the policies that it is compared with: to say what demonstrations do in a state, on the way to a
goal that they reach later (Reuss et al. 2023, §4)."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.beso.agent import BESO, ClonedMean, ClonedMixture, GoalPolicy, make_agent
from rl_interp.agents.beso.config import BESOConfig
from rl_interp.agents.beso.data import Demonstrations, Windows
from rl_interp.agents.beso.demonstrate import demonstrations_of
from rl_interp.agents.beso.diffusion import preconditioning, training_sigmas
from rl_interp.agents.loop import check_finite, score, train_run
from rl_interp.agents.transformer.training import optimizer, schedule
from rl_interp.core.device import pick_device
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run, load_into

_SLOWEST = 10
"""Averaging begins as over the first updates alone, (1 + n) / (10 + n), so that the weights it began with are
forgotten."""


class Training:
    """The state of a run: everything that a checkpoint saves and a resumed run gets back, bit for bit.

    `agent` has the averaged weights, which are evaluated and saved; `learner` those that are trained.
    """

    def __init__(self, config: BESOConfig, seed: int, device: str = "auto"):
        torch.manual_seed(seed)
        self.config, self.seed, self.device = config, seed, pick_device(device)
        self.demonstrations = demonstrations_of(config, seed)
        learner, found = make_agent(config), self.demonstrations
        states, actions, taken = (torch.from_numpy(each) for each in (found.states, found.actions, found.taken))
        learner.scaling.fit(states, taken)
        # Once, since scaling what is drawn would be noticed in an update of so small a network.
        scaled = learner.scaling.states(states).numpy(), learner.scaling.scaled(actions).numpy()
        self._scaled = Demonstrations(*scaled, found.starts)
        self.learner = learner.to(self.device)
        self.agent = copy.deepcopy(self.learner).requires_grad_(False).eval()
        self.optimizer = optimizer(self.learner, config)
        # Once, since to find a network's weights takes as long as to average them.
        self._trained, self._averaged = ([*each.parameters()] for each in (self.learner, self.agent))
        self.rng = np.random.default_rng(seed)
        self.agent_steps = self.updates = 0
        self._losses: list[Tensor] = []

    def advance(self) -> None:
        """One update."""
        config = self.config
        windows = self._scaled.draw(config.num_envs, config.window, config.last_goals, self.rng)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(self.agent_steps, config)
        loss = loss_of(self.learner, Batch.of(self.learner, windows, self.rng))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        clip([each.grad for each in self._trained if each.grad is not None], config.max_grad_norm)
        self.optimizer.step()
        self.updates += 1
        kept = min(config.averaging, (1 + self.updates) / (_SLOWEST + self.updates))
        with torch.no_grad():
            for averaged, trained in zip(self._averaged, self._trained, strict=True):
                averaged.lerp_(trained, 1 - kept)
        self._losses.append(loss.detach())
        self.agent_steps += int(windows.there.sum())

    def metrics(self) -> dict[str, float]:
        """The mean loss since the last call."""
        values: dict[str, float] = {"updates": self.updates}
        if self._losses:
            values["loss"] = float(torch.stack(self._losses).mean())
            check_finite(values["loss"], self.agent_steps)
            self._losses.clear()
        return values

    def score(self) -> Episodes:
        """Goals reached in whole episodes."""
        return score(self.agent, self.config, self.seed, 64)

    def state(self) -> dict[str, Any]:
        return {
            "agent_steps": self.agent_steps,
            "learner": {
                "updates": self.updates,
                "optimizer": self.optimizer.state_dict(),
                "weights": self.learner.state_dict(),
            },
            "rng": self.rng.bit_generator.state,
        }

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any], source: Path) -> None:
        load_into(self.agent, weights, source)
        load_into(self.learner, state["learner"]["weights"], source)
        self.optimizer.load_state_dict(state["learner"]["optimizer"])
        self.updates, self.agent_steps = state["learner"]["updates"], state["agent_steps"]
        self.rng.bit_generator.state = state["rng"]

    def continue_from(self, weights: Mapping[str, Tensor], agent_steps: int, source: Path) -> None:
        """Go on from the averaged weights alone: the optimiser starts afresh, on other windows."""
        for agent in (self.agent, self.learner):
            load_into(agent, weights, source)
        self.agent_steps = agent_steps
        self.updates = agent_steps // (self.config.num_envs * self.config.window)
        self.rng = np.random.default_rng([self.seed, agent_steps])

    def close(self) -> None:
        pass


class Batch:
    """Windows with the random numbers of an update."""

    def __init__(self, states: Tensor, actions: Tensor, goal: Tensor, there: Tensor, sigma: Tensor, noise: Tensor):
        self.states, self.actions, self.goal, self.there = states, actions, goal, there
        self.sigma, self.noise = sigma, noise

    @staticmethod
    def of(agent: GoalPolicy, windows: Windows, rng: np.random.Generator) -> "Batch":
        """On the agent's device, with some goals left out; the windows are as the network is given them."""
        config, places = agent.config, list(agent.goals.achieved)
        size = (len(windows.goals), 1 if config.goal_drop_by == "whole" else len(places))
        asked = np.zeros_like(windows.goals)
        asked[:, places] = windows.goals[:, places] * (rng.random(size, np.float32) >= config.goal_drop)
        share = rng.random(len(asked), np.float32)
        noise = rng.standard_normal(windows.actions.shape, np.float32)
        states, actions, goal, there, drawn, added = (
            torch.from_numpy(each).to(agent.device)
            for each in (windows.states, windows.actions, asked, windows.there, share, noise)
        )
        sigma = training_sigmas(drawn, config.sampling.sigma_min, config.sampling.sigma_max)
        return Batch(states, actions, goal, there, sigma, added)


def loss_of(agent: GoalPolicy, batch: Batch) -> Tensor:
    """The mean over actions of what each kind of policy minimises."""
    kind = next(kind for kind in _LOSSES if isinstance(agent, kind))
    return (_LOSSES[kind](agent, batch) * batch.there).sum() / batch.there.sum()


def _denoising_loss(agent: BESO, batch: Batch) -> Tensor:
    """`[B, K]`: the squared error of F on its target, (a − c_skip x) / c_out, unweighted, where x = a + σ n."""
    skip, out, into = (each[:, None, None] for each in preconditioning(batch.sigma))
    noised = batch.actions + batch.sigma[:, None, None] * batch.noise
    target = (batch.actions - skip * noised) / out
    return (agent.denoiser.raw(into * noised, batch.sigma, batch.states, batch.goal) - target).square().mean(-1)


def _mean_loss(agent: ClonedMean, batch: Batch) -> Tensor:
    return (agent.network(batch.states, batch.goal) - batch.actions).square().mean(-1)


def _mixture_loss(agent: ClonedMixture, batch: Batch) -> Tensor:
    """`[B, K]`: −log p, in nats, but for a constant."""
    weights, means, spreads = agent.mixture(batch.states, batch.goal)
    off = (batch.actions[..., None, :] - means) / spreads.exp()
    return -(weights - (off.square() / 2 + spreads).sum(-1)).logsumexp(-1)


_LOSSES: Mapping[type[GoalPolicy], Any] = {BESO: _denoising_loss, ClonedMean: _mean_loss, ClonedMixture: _mixture_loss}


def clip(gradients: list[Tensor], most: float) -> None:
    """Scale gradients down to a norm, as PyTorch's clip_grad_norm_ does, in half its time: many small tensors are put
    together faster than they are measured one by one."""
    norm = torch.cat([each.flatten() for each in gradients]).norm()
    if norm > most:
        scale = float(most / norm)  # a number, which many tensors are multiplied by faster than by a tensor
        for each in gradients:
            each.mul_(scale)


def train(config: BESOConfig, run: Run, seed: int, device: str = "auto", progress: Progress = SILENT) -> Episodes:
    """Train a run to its end, from wherever it stands; see `agents.loop.train_run`."""
    return train_run(Training(config, seed, device), config, run, progress)
