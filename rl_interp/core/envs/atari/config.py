"""Atari's conventions: Machado et al. (2018, arXiv 1709.06009) with the usual preprocessing, 4-frame skip, the last two
frames' maximum, greyscale, 84×84, a stack of 4 frames (zeros before the first), sticky actions."""

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rl_interp.core.envs.config import EnvConfig
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
    """Emulator frames in an environment step."""
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
        return _minimal_actions(self.id)

    @property
    def frames_per_step(self) -> int:
        return self.frame_skip

    @property
    def steps_per_second(self) -> int:
        """The game's own pace, on a 60 Hz console."""
        return max(1, 60 // self.frame_skip)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (self.frame_stack, 84, 84)

    @property
    def stacked_frames(self) -> int:
        return self.frame_stack

    @property
    def scene_shape(self) -> tuple[int, ...]:
        return (84, 84)


@lru_cache
def _minimal_actions(env_id: str) -> tuple[str, ...]:
    """Kept, as loading a ROM takes a tenth of a second."""
    ale = emulator()
    ale.loadROM(rom_path(env_id))
    return tuple(action.name for action in ale.getMinimalActionSet())


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
