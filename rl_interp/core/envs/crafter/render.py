"""Crafter's frames from kept tiles: what the package would draw, bit for bit, ten times sooner."""

from functools import cache
from typing import Any

import numpy as np
from crafter import constants, engine
from numpy.typing import NDArray

from rl_interp.core.compiled import compiled

_VIEW = (9, 9)
_ROWS = 7
"""The rows, of the view's nine, that show the world; the others show the inventory."""


class Renderer:
    """Frames of 9 by 9 cells, `unit` pixels each, on the square canvas `size` (by default the next multiple of 8).

    At night the package adds noise, drawn from the world's own generator. Here the noise follows from the frame's
    `key`, so that looking twice shows the same and moves nobody.
    """

    def __init__(self, unit: int, size: int | None = None):
        self.unit, self.size = unit, size or -(-9 * unit // 8) * 8
        self._textures = _textures()
        self._empty = np.full((unit, unit, 3), 127, np.uint8)
        xs, ys = np.meshgrid(np.linspace(-1, 1, 9 * unit), np.linspace(-1, 1, _ROWS * unit))
        self._vignette = 1 - np.exp(-0.5 * (xs**2 + ys**2) / 0.5**2).T
        self._tiles: dict[tuple[str | None, str | None], NDArray[np.uint8]] = {}
        self._slots: dict[tuple[str, int], NDArray[np.uint8]] = {}

    def __call__(self, world: Any, player: Any, key: tuple[int, int]) -> NDArray[np.uint8]:
        """RGB `[size, size, 3]`."""
        unit = self.unit
        canvas = np.empty((9 * unit, 9 * unit, 3), np.uint8)  # x first, as the package's
        left, top = int(player.pos[0]) - 4, int(player.pos[1]) - _ROWS // 2
        for x in range(9):
            for y in range(_ROWS):
                canvas[x * unit : (x + 1) * unit, y * unit : (y + 1) * unit] = self._tile(world, left + x, top + y)
        local = canvas[:, : _ROWS * unit]
        local[:] = self._lit(local, world.daylight, player.sleeping, key)
        canvas[:, _ROWS * unit :] = 0
        for index, (item, amount) in enumerate(player.inventory.items()):
            if amount >= 1:
                x, y = (index % 9) * unit, (_ROWS + index // 9) * unit
                canvas[x : x + unit, y : y + unit] = self._slot(item, amount)
        border = (self.size - 9 * unit) // 2
        out = np.zeros((self.size, self.size, 3), np.uint8)
        out[border : border + 9 * unit, border : border + 9 * unit] = canvas.transpose(1, 0, 2)
        return out

    def _tile(self, world: Any, x: int, y: int) -> NDArray[np.uint8]:
        if not (0 <= x < world.area[0] and 0 <= y < world.area[1]):
            return self._empty
        thing = world._objects[world._obj_map[x, y]]
        name = world._mat_names[world._mat_map[x, y]], thing.texture if thing else None
        if name not in self._tiles:
            tile = self._empty.copy()
            engine._draw(tile, (0, 0), self._textures.get(name[0], (self.unit, self.unit)))
            if name[1]:
                engine._draw_alpha(tile, (0, 0), self._textures.get(name[1], (self.unit, self.unit)))
            self._tiles[name] = tile
        return self._tiles[name]

    def _slot(self, item: str, amount: int) -> NDArray[np.uint8]:
        if (item, amount) not in self._slots:
            view = engine.ItemView(self._textures, [1, 1])
            self._slots[item, amount] = view({item: amount}, np.array([self.unit, self.unit]))
        return self._slots[item, amount]

    def _lit(
        self, canvas: NDArray[np.uint8], daylight: float, sleeping: bool, key: tuple[int, int]
    ) -> NDArray[np.uint8]:
        if daylight < 0.5:
            noise = np.random.default_rng(key).uniform(32, 127, canvas.shape[:2])
            amount = 2 * (0.5 - daylight)
        else:
            noise, amount = self._vignette, 0.0
        out = np.empty(canvas.shape, np.uint8)
        _light(canvas, noise, amount * self._vignette, daylight, sleeping, out)
        return out


@cache
def _textures() -> engine.Textures:
    return engine.Textures(constants.root / "assets")


@compiled()
def _light(
    canvas: NDArray[np.uint8],
    noise: NDArray[np.float64],
    mask: NDArray[np.float64],
    daylight: float,
    sleeping: bool,
    out: NDArray[np.uint8],
) -> None:
    """Darken and tint by time of day, and for sleep. Each rounding is where the package has it."""
    night, pixel = np.empty(3, np.uint8), np.empty(3)
    for x in range(canvas.shape[0]):
        for y in range(canvas.shape[1]):
            for c in range(3):
                value = float(canvas[x, y, c])
                night[c] = np.uint8((1 - mask[x, y]) * value + mask[x, y] * noise[x, y])
            grey = _grey(night)
            for c in range(3):
                tinted = 0.5 * _towards(grey, night[c], 0.4) + 0.5 * (0, 16, 64)[c]
                pixel[c] = daylight * canvas[x, y, c] + (1 - daylight) * tinted
            if sleeping:
                for c in range(3):
                    night[c] = np.uint8(pixel[c])
                grey = _grey(night)
                for c in range(3):
                    pixel[c] = 0.5 * grey + 0.5 * (0, 0, 16)[c]
            for c in range(3):
                out[x, y, c] = np.uint8(pixel[c])


@compiled()
def _grey(rgb: NDArray[np.uint8]) -> np.uint8:
    """Pillow's luma of an RGB pixel."""
    return np.uint8((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16)


@compiled()
def _towards(grey: np.uint8, value: np.uint8, factor: float) -> np.uint8:
    """Pillow's blend of two bytes."""
    return np.uint8(np.float32(grey) + np.float32(factor) * np.float32(float(value) - float(grey)))
