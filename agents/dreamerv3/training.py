"""Training DreamerV3: play, remember, and learn as often as the train ratio says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rl_interp.agents.cbet import CBET
from rl_interp.agents.dreamerv3.agent import make_agent
from rl_interp.agents.dreamerv3.config import DreamerV3Config
from rl_interp.agents.dreamerv3.learner import EXPLORER, Learner
from rl_interp.agents.dreamerv3.replay import SequenceReplay
from rl_interp.agents.dreamerv3.rssm import RSSM, Latent
from rl_interp.agents.loop import check_finite, restored_state, score, train_run
from rl_interp.agents.phases import load_explorer
from rl_interp.core.device import keep_memory, pick_device
from rl_interp.core.envs import make_vector
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import Actor, Episodes
from rl_interp.core.run import Run, load_into


class Training:
    """The state of a run: everything that a checkpoint saves and a resumed run gets back.

    The updates that are due are taken while the environments step, where those have processes of their own; what
    they give is the same as if the two took turns.

    Args:
        directory: of the replay's memory maps.
    """

    def __init__(self, config: DreamerV3Config, seed: int, directory: Path | None, device: str = "auto"):
        keep_memory()
        torch.manual_seed(seed)
        self.config, self.seed = config, seed
        env = config.env
        self.agent = make_agent(config).train()
        if self.agent.explorer is not None:
            load_explorer(self.agent.explorer, config)
        self.learner = Learner(self.agent, pick_device(device))
        capacity = min(config.replay_capacity, config.agent_steps + config.num_envs)
        latents = {}
        for rssm, _, prefix in self._remembered():
            latents |= rssm.packing(prefix)
        self.replay = SequenceReplay(
            capacity, config.num_envs, env.observation_shape, bonus=config.cbet is not None,
            directory=directory if config.replay_on_disk else None,
            latents=latents, dtype=env.observation_dtype, actions=len(env.action_names),
        )  # fmt: skip
        self.bonus = None
        if config.cbet is not None:
            self.bonus = CBET(config.cbet, config.num_envs, env.observation_shape, env.scene_shape, seed)
        self.env = make_vector(env, config.num_envs)
        self.rng = np.random.default_rng(seed)
        self.actor = Actor(self.agent, config.num_envs, self.rng)
        self.agent_steps = 0
        self._figures: list[dict[str, float]] = []
        self._returns: list[float] = []
        self._bonuses: list[float] = []
        self._begin()

    def _begin(self) -> None:
        """Start fresh episodes, seeded by how far training has come, so that a resumed run plays new ones."""
        count = self.config.num_envs
        self._obs = self.env.reset(self.seed + self.agent_steps)
        self._scene = self.env.scene() if self.bonus is not None else None
        self._came = {
            "rewards": np.zeros(count, np.float32),
            "terminated": np.zeros(count, bool),
            "first": np.ones(count, bool),
        }
        if self.bonus is not None:
            self._came["bonus"] = np.zeros(count, np.float32)
        self._return = np.zeros(count, np.float32)

    def advance(self) -> None:
        """Take one step in every environment and the updates that are due."""
        config = self.config
        first = self._came["first"]
        # At random until learning starts.
        random = len(self.replay) < config.learning_starts
        actions = self.actor.act(self._obs, first, epsilon=1.0 if random else 0.0)
        # A slot of the replay: an observation, what came with it, the action taken there, and perhaps the latents.
        latents = {}
        for rssm, at, prefix in self._remembered():
            latents |= rssm.packed(Latent(*self.actor.state[at : at + 2]), prefix)
        self.replay.add(obs=self._obs, actions=actions, **self._came, **latents)
        # The environments step while this process learns, where they have processes of their own.
        self.env.send(actions)
        self._learn()
        step = self.env.recv()
        self._came = {"rewards": step.reward, "terminated": step.terminated, "first": step.first}
        if self.bonus is not None:
            # Counts are of the change that the step made, so the scene before it is kept.
            scene = self.env.scene()
            assert self._scene is not None
            self._came["bonus"] = self.bonus(step.obs, self._scene, scene, step.first)
            self._scene = scene
            self._bonuses.append(float(self._came["bonus"].mean()))
        self._return += step.reward
        for i in np.flatnonzero(step.done):
            self._returns.append(float(self._return[i]))
            self._return[i] = 0
        self._obs = step.obs
        self.agent_steps += config.num_envs

    def _learn(self) -> None:
        """Take the updates that are due by now."""
        config, now = self.config, self.agent_steps
        if len(self.replay) < config.learning_starts or not self.replay.holds(config.batch_length):
            return
        each = config.batch_size * config.batch_length / config.train_ratio  # environment steps per update
        for _ in range(int(now / each) - int((now - config.num_envs) / each)):
            batch = self.replay.sample(config.batch_size, config.batch_length, self.rng)
            figures, latent = self.learner.update(batch)
            values = torch.stack(list(figures.values())).tolist()  # one wait for an accelerator, not one each
            self._figures.append(dict(zip(figures, values, strict=True)))
            for name, value in self._figures[-1].items():
                check_finite(value, self.agent_steps, name, "model_lr or behaviour_lr")
            if latent is not None:  # an explorer never changes, so its latents stay as they were played
                self.replay.renew(**self.agent.world_model.rssm.packed(latent))

    def _remembered(self) -> list[tuple[RSSM, int, str]]:
        """Whose latents the replay keeps, where they are in the agent's state, and the prefix of their names."""
        if not self.config.replay_latents:
            return []
        explorer = self.agent.explorer
        own = (self.agent.world_model.rssm, 0, "")
        return [own] if explorer is None else [own, (explorer.world_model.rssm, 3, EXPLORER)]

    def metrics(self) -> dict[str, float]:
        """Means since the last call: of every update's figures, of the extrinsic returns of episodes that ended, and of
        the bonus that was paid."""
        values: dict[str, float] = {"updates": self.learner.updates}
        if self._figures:
            values |= {name: float(np.mean([each[name] for each in self._figures])) for name in self._figures[0]}
            self._figures.clear()
        if self._returns:
            values |= {"episode_return": float(np.mean(self._returns)), "episodes": len(self._returns)}
            self._returns.clear()
        if self._bonuses:
            values["bonus"] = float(np.mean(self._bonuses))
            self._bonuses.clear()
        return values

    def score(self) -> Episodes:
        """Evaluate, with the policy sampled from as in training."""
        return score(self.agent, self.config, self.seed)

    def state(self) -> dict[str, Any]:
        self.replay.flush()
        return {
            "agent_steps": self.agent_steps,
            "learner": self.learner.state(),
            "replay": self.replay.state(),
            "bonus": None if self.bonus is None else self.bonus.state(),
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self.learner.device) if self.learner.device.type == "cuda" else None,
            "episodes": self._episodes(),
        }

    def _episodes(self) -> dict[str, Any] | None:
        """Where the episodes stand; None where the environments have no `state()`, so that a resumed run starts new
        ones."""
        if not hasattr(self.env, "state"):
            return None
        return {
            "env": self.env.state(),  # pyright: ignore[reportAttributeAccessIssue]
            "came": {name: torch.from_numpy(array) for name, array in self._came.items()},
            "return": torch.from_numpy(self._return),
            "actor": list(self.actor.state),
        }

    def restore(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], source: Path) -> None:
        load_into(self.agent, weights, source)
        self.learner.restore(state["learner"])
        if self.config.replay_on_disk:
            self.replay.restore(state["replay"])
        if self.bonus is not None:
            self.bonus.restore(state["bonus"])
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        if self.learner.device.type == "cuda" and state.get("device_rng") is not None:
            torch.cuda.set_rng_state(state["device_rng"], self.learner.device)
        self.agent_steps = state["agent_steps"]
        episodes = state["episodes"]
        if episodes is None:
            self._begin()
            return
        self._obs = self.env.restore(episodes["env"])  # pyright: ignore[reportAttributeAccessIssue]
        self._scene = self.env.scene() if self.bonus is not None else None
        self._came = {name: tensor.numpy().copy() for name, tensor in episodes["came"].items()}
        self._return = episodes["return"].numpy().copy()
        self.actor.state = restored_state(episodes["actor"], self.actor.state)

    def continue_from(self, weights: Mapping[str, torch.Tensor], agent_steps: int, source: Path) -> None:
        """Go on from weights alone: the optimisers start afresh and the replay fills before learning does."""
        load_into(self.agent, weights, source)
        self.agent_steps = agent_steps
        self._begin()

    def close(self) -> None:
        self.env.close()


def train(config: DreamerV3Config, run: Run, seed: int, device: str = "auto", progress: Progress = SILENT) -> Episodes:
    """Train a DreamerV3 run to its end, from wherever it stands; see `agents.loop.train_run`."""
    with run.writing():  # before its replay is opened
        return train_run(Training(config, seed, run.path / "replay", device), config, run, progress)
