"""Many Atari games at once, in ale-py's C++ vector environment."""

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray

from rl_interp.core.envs.atari.config import AtariConfig, rom_name
from rl_interp.core.envs.vector import Step


class AtariVector:
    """`AtariVectorEnv` behind the suite's vector convention; `info["lives"]` counts lives left.

    Its `episodic_life` option is not used: it restarts the game at each lost life, so later lives
    would never be seen. Training reads `lives` instead.
    """

    def __init__(self, config: AtariConfig, num_envs: int, threads: int = 0):
        self.config = config
        self.num_envs = num_envs
        self._env = AtariVectorEnv(
            rom_name(config.id),
            num_envs,
            num_threads=threads,
            max_num_frames_per_episode=config.max_frames,
            repeat_action_probability=config.sticky_actions,
            frameskip=config.frame_skip,
            stack_num=config.frame_stack,
            noop_max=config.noop_max,
            use_fire_reset=False,
            reward_clipping=False,
        )
        self.observation_shape = config.observation_shape
        self.action_names = config.action_names

    def reset(self, seed: int) -> NDArray[np.uint8]:
        obs, _ = self._env.reset(seed=seed)
        self._ended = np.zeros(self.num_envs, bool)
        self._frames = np.array(obs)
        return self._frames

    def send(self, actions: NDArray[np.int64] | NDArray[np.float32]) -> None:
        self._env.send(actions)

    def recv(self) -> Step:
        obs, reward, terminated, truncated, info = self._env.recv()
        self._frames = np.array(obs)
        first, self._ended = self._ended, terminated | truncated
        return Step(
            self._frames,
            reward.astype(np.float32),
            np.array(terminated),
            np.array(truncated),
            first,
            {"lives": np.array(info["lives"])},
        )

    def scene(self) -> NDArray[np.uint8]:
        return self._frames[:, -1]

    def close(self) -> None:
        self._env.close()
