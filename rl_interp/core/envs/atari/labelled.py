"""One Atari game with its labels and its screen, equal to `AtariVector` in every observation.

Built on the emulator itself: the vector environment seeds it with the seed as given and draws no-op
starts in its own way, where Gymnasium's wrappers do neither, so that only this gives the same episodes.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import cv2
import gymnasium
import numpy as np
from numpy.typing import NDArray

import rl_interp.core.envs.atari.mspacman as mspacman
from rl_interp.core.envs.atari.config import AtariConfig, emulator, rom_name, rom_path
from rl_interp.core.envs.atari.games import GAMES
from rl_interp.core.envs.atari.tables import GroundTruth
from rl_interp.core.envs.labelled import Cells, Concept

LABELS: Mapping[str, GroundTruth] = {
    "ms_pacman": GroundTruth(mspacman.CONCEPTS, mspacman.labels, mspacman.hindsight)
} | {rom: game.ground_truth() for rom, game in GAMES.items()}
"""ROM to what is known of its RAM."""


Snapshot = tuple[Any, int, tuple[NDArray[np.uint8], ...]]
"""The emulator's state, the frames played, and what was last seen."""


class AtariLabelled(gymnasium.Env):
    """A Gymnasium environment with observations uint8 `[stack, 84, 84]`, the newest frame last.

    `info` holds `lives` and, for the games in `LABELS`, `labels`. `reset(seed=...)` makes the episode
    reproducible; without a seed the emulator's randomness goes on, as in the vector environment.
    """

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def __init__(self, config: AtariConfig):
        self.config = config
        self._rom = rom_name(config.id)
        self._path = rom_path(config.id)
        self._ale = emulator()
        self._ale.setFloat("repeat_action_probability", config.sticky_actions)
        self._ale.loadROM(self._path)
        self._actions = self._ale.getMinimalActionSet()
        self.action_names = tuple(action.name for action in self._actions)
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        self.observation_space = gymnasium.spaces.Box(0, 255, (config.frame_stack, 84, 84), np.uint8)
        self.concepts: Mapping[str, Concept] = LABELS[self._rom].concepts if self._rom in LABELS else {}
        self._noops = _MersenneTwister(0)
        height, width = self._ale.getScreenDims()  # 210 or, of some games, 250 rows
        self._screens = np.empty((2, height, width), np.uint8)
        self._painted = np.zeros((height, width, 3), np.uint8)
        self._stack = np.zeros(self.observation_space.shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self._ale.setInt("random_seed", seed)
            self._ale.loadROM(self._path)
            self._noops = _MersenneTwister(seed)
        self._ale.reset_game()
        for _ in range(self._noops.below(self.config.noop_max)):
            self._ale.act(self._actions[0])
            if self._ale.game_over():
                self._ale.reset_game()
        self._frames = 0  # of play: the no-ops do not count
        self._painted[:] = 0
        self._screens[1] = 0
        self._ale.getScreenGrayscale(self._screens[0])
        self._stack[:] = 0
        self._see()
        return self._stack.copy(), self._info()

    def step(self, action: int) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        reward = self._advance(action)
        self._see()
        truncated = self._frames == self.config.max_frames
        return self._stack.copy(), reward, self._ale.game_over(), truncated, self._info()

    def _advance(self, action: int, see: bool = True, paint: bool = True) -> float:
        """Repeat the action for the skipped frames. Keeps the last two greyscale screens if `see`, and the
        last but one in colour if `paint`."""
        move, skip, reward = self._actions[action], self.config.frame_skip, 0
        for frame in range(skip):
            reward += self._ale.act(move)
            self._frames += 1
            if self._ale.game_over() or self._frames == self.config.max_frames:
                break
            if see and frame >= skip - 2:
                self._ale.getScreenGrayscale(self._screens[skip - 1 - frame])
            if paint and frame == skip - 2:
                self._ale.getScreenRGB(self._painted)
        return float(reward)

    def _see(self) -> None:
        """Push the two screens' maximum onto the stack. It stays in the first of them, the
        newer: an episode that ends in mid-skip shows what was there before, as in the vector form."""
        np.maximum(self._screens[0], self._screens[1], out=self._screens[0])
        self._stack[:-1] = self._stack[1:]
        cv2.resize(self._screens[0], (84, 84), dst=self._stack[-1], interpolation=cv2.INTER_AREA)

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"lives": self._ale.lives()}
        known = LABELS.get(self._rom)
        info["labels"] = known.labels(self._ale.getRAM(), self.config.frame_skip) if known else {}
        return info

    def render(self) -> NDArray[np.uint8]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The last two screens' maximum in colour, uint8 RGB `[H, 160, 3]`, H 210 in most games: ghosts flicker, and
        a single screen leaves out some that the agent sees."""
        return np.maximum(self._painted, self._ale.getScreenRGB())

    def replay(
        self, seed: int, actions: Sequence[int] | NDArray[np.integer], steps: Collection[int]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Between the steps that are asked for, only the frames that the next observation stacks are looked at."""
        self.reset(seed=seed)
        at = 0
        for step in steps:
            for on_way in range(at + 1, step + 1):
                seen = step - on_way < self.config.frame_stack
                self._advance(int(actions[on_way - 1]), see=seen, paint=on_way == step)
                if seen:
                    self._see()
            at = step
            yield step, self._stack.copy()

    def cells(self) -> Cells:
        return {}  # a screen of pixels

    @property
    def ram(self) -> NDArray[np.uint8]:
        """The console's `[128]` bytes now, a copy."""
        return self._ale.getRAM()

    def write(self, ram: Mapping[int, int]) -> None:
        """Set bytes of the RAM; the screen shows it from the next frame on."""
        for byte, value in ram.items():
            self._ale.setRAM(byte, value)

    def snapshot(self) -> "Snapshot":
        """What `restore` needs to go on from here, the emulator's randomness included."""
        parts = self._screens, self._painted, self._stack
        return self._ale.cloneState(include_rng=True), self._frames, tuple(part.copy() for part in parts)

    def restore(self, snapshot: "Snapshot") -> NDArray[np.uint8]:
        """Go back to where a snapshot was taken; returns the observation there."""
        state, self._frames, screens = snapshot
        self._ale.restoreState(state)
        for part, kept in zip((self._screens, self._painted, self._stack), screens, strict=True):
            part[:] = kept
        return self._stack.copy()

    def hindsight(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return LABELS[self._rom].hindsight(columns) if self._rom in LABELS else {}

    def close(self) -> None:
        pass


class _MersenneTwister:
    """C++'s `std::mt19937` with `uniform_int_distribution`, which draws the vector environment's no-ops."""

    def __init__(self, seed: int):
        self._state = np.random.RandomState(seed)

    def below(self, bound: int) -> int:
        """Uniform in [0, bound): the high half of a 32-bit draw times `bound` (Lemire 2019), 0 for no bound."""
        if bound == 0:
            return 0
        return int(self._state.randint(0, 2**32, dtype=np.uint32)) * bound >> 32
