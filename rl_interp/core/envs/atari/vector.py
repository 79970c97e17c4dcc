"""Atari: the C++ vector environment for speed and one Gymnasium environment for looking inside.

Both follow Machado et al. (2018, arXiv 1709.06009) with the usual preprocessing: 4-frame skip, the
last two frames' maximum, greyscale, 84×84, a stack of 4 frames (zeros before the first), sticky actions.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.labelled import LabelledEnv
from rl_interp.core.envs.vector import EnvConfig, Step
from rl_interp.core.errors import UserError, require_numbers, unknown

if TYPE_CHECKING:
    from ale_py import ALEInterface


@dataclass(frozen=True)
class AtariConfig(EnvConfig):
    """Emulator conventions; they are part of every result."""

    id: str = "ALE/MsPacman-v5"
    """Gymnasium id."""
    sticky_actions: float = 0.25
    """Probability that a frame repeats the last action."""
    frame_skip: int = 4
    """Emulator frames per decision."""
    frame_stack: int = 4
    """Frames in an observation."""
    noop_max: int = 30
    """An episode starts with a random number of no-op frames, from 0 to one less than this; 0 for none."""
    max_frames: int = 108_000
    """Emulator frames after which an episode is truncated (30 minutes of play)."""

    def __post_init__(self) -> None:
        if not 0 <= self.sticky_actions < 1:
            raise UserError(f"sticky_actions={self.sticky_actions} given; it is a probability in [0, 1).")
        require_numbers(self, at_least_1=("frame_skip", "frame_stack", "max_frames"), at_least_0=("noop_max",))

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the game's minimal action set, in order, e.g. `("NOOP", "UP", ...)`."""
        ale = emulator()
        ale.loadROM(rom_path(self.id))
        return tuple(action.name for action in ale.getMinimalActionSet())

    @property
    def frames_per_step(self) -> int:
        return self.frame_skip

    @property
    def decisions_per_second(self) -> int:
        """The game's own pace, on a 60 Hz console."""
        return max(1, 60 // self.frame_skip)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (self.frame_stack, 84, 84)

    @property
    def scene_shape(self) -> tuple[int, ...]:
        return (84, 84)

    def vector(self, num_envs: int, workers: int) -> "AtariVector":
        return AtariVector(self, num_envs, workers)

    def labelled(self) -> LabelledEnv:
        from rl_interp.core.envs.atari.labelled import AtariLabelled

        return AtariLabelled(self)


def rom_name(env_id: str) -> str:
    """The ROM of an `ALE/<Game>-v5` id, e.g. `ms_pacman`."""
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    if env_id not in gymnasium.registry:
        raise UserError(unknown("environment", env_id, [i for i in gymnasium.registry if i.startswith("ALE/")]))
    return gymnasium.spec(env_id).kwargs["game"]


def rom_path(env_id: str) -> str:
    """The file of the ROM, which ale-py brings along."""
    from ale_py import roms

    return str(roms.get_rom_path(rom_name(env_id)))


def emulator() -> "ALEInterface":
    """An emulator without a game, which prints errors only."""
    from ale_py import ALEInterface, LoggerMode

    ALEInterface.setLoggerMode(LoggerMode.Error)
    return ALEInterface()


class AtariVector:
    """`AtariVectorEnv` behind the suite's vector convention; `info["lives"]` counts lives left.

    Its `episodic_life` option is not used: it restarts the game at each lost life, so later lives
    would never be seen. Training reads `lives` instead.
    """

    def __init__(self, config: AtariConfig, num_envs: int, threads: int = 0):
        from ale_py.vector_env import AtariVectorEnv

        self.config = config
        self.num_envs = num_envs
        self._env = AtariVectorEnv(
            rom_name(config.id),
            num_envs,
            num_threads=threads,
            max_num_frames_per_episode=config.max_frames,
            repeat_action_probability=config.sticky_actions,
            stack_num=config.frame_stack,
            frameskip=config.frame_skip,
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

    def send(self, actions: NDArray[np.int64]) -> None:
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
