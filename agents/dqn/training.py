"""Training a DQN: act, store, learn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.cbet import CBET
from rl_interp.agents.dqn.agent import make_agent
from rl_interp.agents.dqn.config import DQNConfig
from rl_interp.agents.dqn.learner import Learner
from rl_interp.agents.dqn.replay import Replay
from rl_interp.agents.loop import check_finite, score, train_run
from rl_interp.agents.phases import Transfer, load_explorer
from rl_interp.core.device import pick_device
from rl_interp.core.envs import Step, make_vector
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import Actor, Episodes
from rl_interp.core.run import Run, load_into


class Training:
    """The state of a run: everything that a checkpoint saves and a resumed run gets back.

    Where the environments have a `state()`, a resumed run goes on bit for bit as if it had not stopped; elsewhere
    (Atari) it plays new episodes. The updates that are due are taken while the environments step, where those have
    threads or processes of their own; what they give is the same as if the two took turns.

    Args:
        directory: of the replay's memory maps; None to keep it in memory.
    """

    def __init__(self, config: DQNConfig, seed: int, directory: Path | None, device: str = "auto"):
        torch.manual_seed(seed)
        self.config, self.seed = config, seed
        env, stack = config.env, config.env.stacked_frames
        self.env = make_vector(env, config.num_envs, workers=config.env_threads)
        self.agent = make_agent(config)
        if isinstance(self.agent, Transfer):
            load_explorer(self.agent.explorer, config)
        self.learner = Learner(self.agent, config, pick_device(device))
        self.replay = Replay(
            config.replay_capacity,
            config.num_envs,
            env.observation_shape if stack is None else env.observation_shape[1:],
            stack,
            config.n_step,
            config.gamma,
            directory,
            env.observation_dtype,
            len(env.action_names),
            config.priority,
        )
        self.bonus = None
        if config.cbet is not None:
            self.bonus = CBET(config.cbet, config.num_envs, env.observation_shape, env.scene_shape, seed)
        self.rng = np.random.default_rng(seed)
        self.actor = Actor(self.agent, config.num_envs, self.rng)
        self.agent_steps = 0
        self.episode_returns: list[float] = []
        self.loss: torch.Tensor | None = None
        self._bonuses: list[float] = []
        self._begin()

    def _begin(self) -> None:
        """Start fresh episodes, seeded by how far training has come, so that a resumed run plays new ones."""
        self._obs = self.env.reset(self.seed + self.agent_steps)
        self._first = np.ones(self.config.num_envs, bool)
        self._scene = self.env.scene() if self.bonus is not None else None
        self._lives: np.ndarray | None = None
        self._return = np.zeros(self.config.num_envs)

    @property
    def epsilon(self) -> float:
        """Probability of a random action now."""
        fraction = min(1.0, self.agent_steps / self.config.epsilon_steps)
        return 1 + fraction * (self.config.epsilon_final - 1)

    def advance(self) -> None:
        """Take one step in every environment and the updates that are due."""
        config = self.config
        with self.learner.autocast():
            actions = self.actor.act(self._obs, self._first, self.epsilon)
        # The emulators step in their threads while this one learns.
        self.env.send(actions)
        self._learn()
        step = self.env.recv()
        # A step that only reset its environment leads nowhere: its slot holds a frame, and no transition.
        newest = self._obs if self.replay.stack is None else self._obs[:, -1]
        reward, terminal = self._learned_from(step)
        self.replay.add(newest, self._first, actions, reward, terminal & ~step.first, ~step.first)
        self._return += step.reward
        for i in np.flatnonzero(step.done):
            self.episode_returns.append(float(self._return[i]))
            self._return[i] = 0
        self._obs, self._first = step.obs, step.first
        self.agent_steps += config.num_envs

    def _learned_from(self, step: Step) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The rewards and ends of a step as the learner is to see them, `[N]` each."""
        config = self.config
        # To the learner a lost life can be the end; to the game, and to reported returns, it is not.
        terminal, lives = step.terminated, step.info.get("lives")
        if config.life_loss_terminal and lives is not None and self._lives is not None:
            terminal = terminal | (lives < self._lives)
        self._lives = lives
        reward = config.reward_scale * step.reward
        if config.clip_reward:
            reward = np.clip(reward, -1, 1)
        if self.bonus is None:
            return reward, terminal
        # Counts are of the change that the step made, so the scene before it is kept.
        scene = self.env.scene()
        assert self._scene is not None
        bonus = self.bonus(step.obs, self._scene, scene, step.first)
        self._scene = scene
        self._bonuses.append(float(bonus.mean()))
        # Exploration is not episodic: in pre-training a death costs nothing by itself.
        return (bonus, np.zeros_like(terminal)) if config.pretrain else (reward + bonus, terminal)

    def _learn(self) -> None:
        """Take the updates that are due by now."""
        config, now = self.config, self.agent_steps
        if len(self.replay) >= config.learning_starts:
            for _ in range(now // config.train_every - (now - config.num_envs) // config.train_every):
                batch = self.replay.sample(config.batch_size, self.rng)
                self.loss = self.learner.update(batch, now / config.agent_steps)
                if config.priority:
                    self.replay.reprioritize(batch, self.learner.errors.cpu().numpy())

    def metrics(self) -> dict[str, float]:
        """The last update's loss; the mean return of episodes that ended since the last call."""
        values = {"epsilon": self.epsilon, "updates": self.learner.updates}
        if self.loss is not None:
            values["loss"] = self.loss.item()
            check_finite(values["loss"], self.agent_steps)
        if self.episode_returns:
            values["episode_return"] = float(np.mean(self.episode_returns))
            self.episode_returns.clear()
        if self._bonuses:
            values["bonus"] = float(np.mean(self._bonuses))
            self._bonuses.clear()
        return values

    def score(self) -> Episodes:
        """Evaluate without clipping rewards and without ending episodes at lost lives."""
        return score(self.agent, self.config, self.seed, self.config.num_envs, self.config.env_threads)

    def state(self) -> dict[str, Any]:
        self.replay.flush()
        return {
            "agent_steps": self.agent_steps,
            "learner": self.learner.state(),
            "replay": self.replay.state(),
            "bonus": None if self.bonus is None else self.bonus.state(),
            "rng": self.rng.bit_generator.state,
            "torch_rng": torch.get_rng_state(),
            "episodes": self._episodes(),
        }

    def _episodes(self) -> dict[str, Any] | None:
        """Where the episodes stand; None where the environments have no `state()`, so that a resumed run starts new
        ones."""
        if not hasattr(self.env, "state"):
            return None
        return {
            "env": self.env.state(),  # pyright: ignore[reportAttributeAccessIssue]
            "first": torch.from_numpy(self._first),
            "return": torch.from_numpy(self._return),
        }

    def restore(self, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], source: Path) -> None:
        load_into(self.agent, weights, source)
        self.learner.restore(state["learner"])
        episodes = state.get("episodes")  # checkpoints of earlier versions have none
        self.replay.restore(state["replay"], goes_on=episodes is not None)
        if self.bonus is not None:
            self.bonus.restore(state["bonus"])
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])
        self.agent_steps = state["agent_steps"]
        self._begin()
        if episodes is not None:
            self._obs = self.env.restore(episodes["env"])  # pyright: ignore[reportAttributeAccessIssue]
            self._scene = self.env.scene() if self.bonus is not None else None
            self._first = episodes["first"].numpy().copy()
            self._return = episodes["return"].numpy().copy()

    def continue_from(self, weights: Mapping[str, torch.Tensor], agent_steps: int, source: Path) -> None:
        """Go on from weights alone: the optimiser starts afresh, and the replay fills before learning does."""
        load_into(self.agent, weights, source)
        self.learner.begin()
        self.agent_steps = agent_steps
        self._begin()

    def close(self) -> None:
        self.env.close()


def train(config: DQNConfig, run: Run, seed: int, device: str = "auto", progress: Progress = SILENT) -> Episodes:
    """Train a DQN's run to its end, from wherever it stands; see `agents.loop.train_run`."""
    with run.writing():  # before its replay is opened
        return train_run(Training(config, seed, run.path / "replay", device), config, run, progress)
