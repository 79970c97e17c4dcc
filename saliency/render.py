"""Pictures of saliency: the screen with the map on it, beside what the agent thinks of each action."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rl_interp.core.errors import UserError
from rl_interp.core.pictures import font_of

HEIGHT = 640
"""Pixels of every picture, from top to bottom."""
_PANEL = 360
_MARGIN = 24
_BACKGROUND = (18, 20, 24)
_INK, _FAINT = (236, 238, 240), (140, 146, 154)
_BAR, _CHOSEN = (86, 96, 112), (255, 176, 59)
_FOR, _AGAINST = (255, 64, 48), (64, 156, 255)


@dataclass(frozen=True)
class Panel:
    """What stays the same over a video."""

    action_names: Sequence[str]
    target: str
    method: str
    scale: float
    """The map's value at full colour: one for the whole video, so that frames can be compared."""
    preference_range: tuple[float, float]
    """Q-values (or logits) at the two ends of the bars."""


@dataclass(frozen=True)
class Frame:
    """What one step shows."""

    screen: NDArray[np.uint8]
    """RGB `[H, W, 3]`, of any size."""
    saliency: NDArray[np.float32]
    """`[h, w]`, signed, stretched over the whole screen."""
    preferences: NDArray[np.float32]
    """`[A]`."""
    action: int
    episode_return: float
    step: int
    notes: Sequence[str] = field(default_factory=tuple)
    """Further lines for the panel."""


def preference_range(preferences: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """The range of a panel's bars: that of the preferences `[A]` of some steps, with a little room. An action that is
    ruled out, by -inf, is left out."""
    values = np.concatenate(preferences)
    values = values[np.isfinite(values)]
    room = 0.05 * float(np.ptp(values))
    return float(values.min()) - room, float(values.max()) + room


def compose(frame: Frame, panel: Panel) -> NDArray[np.uint8]:
    """The picture, uint8 RGB `[HEIGHT, width, 3]`, width even, set by the screen's shape."""
    screen_height, screen_width = frame.screen.shape[:2]
    width = 2 * round(HEIGHT * screen_width / screen_height / 2)
    canvas = np.empty((HEIGHT, width + _PANEL, 3), np.uint8)
    canvas[:, :width] = overlay(frame.screen, frame.saliency, panel.scale, (HEIGHT, width))
    canvas[:, width:] = _BACKGROUND
    image = Image.fromarray(canvas)
    _draw_panel(ImageDraw.Draw(image), width + _MARGIN, frame, panel)
    return np.asarray(image)


def overlay(
    screen: NDArray[np.uint8], saliency: NDArray[np.float32], scale: float, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The screen, enlarged to `size` (height, width), with the map in red (for the target) and blue (against).

    Raises:
        UserError: a map without places, as those of vectors are.
    """
    if saliency.ndim != 2:
        raise UserError(
            f"a map {saliency.shape} given, which has no places on a screen; give [h, w], and draw a vector's as bars."
        )
    shape = (size[1], size[0])
    large = cv2.resize(screen, shape, interpolation=cv2.INTER_NEAREST).astype(np.float32)
    strength = np.clip(cv2.resize(saliency / max(scale, 1e-12), shape, interpolation=cv2.INTER_LINEAR), -1, 1)
    colour = np.where(strength[..., None] > 0, np.array(_FOR, np.float32), np.array(_AGAINST, np.float32))
    weight = 0.85 * np.abs(strength)[..., None]
    # A dimmed screen, so that red on a red ghost can still be told from no map at all.
    return (0.6 * large * (1 - weight) + colour * weight).astype(np.uint8)


def _draw_panel(draw: ImageDraw.ImageDraw, left: int, frame: Frame, panel: Panel) -> None:
    right = left + _PANEL - 2 * _MARGIN
    # What this step is.
    y = _MARGIN
    for text, size, colour in (
        (f"return {_short(frame.episode_return)}", 26, _INK),
        (f"step {frame.step:,}", 16, _FAINT),
        (f"{panel.method} of {panel.target}", 16, _FAINT),
        *((note, 16, _FAINT) for note in frame.notes),
    ):
        draw.text((left, y), text, colour, font_of(size))
        y += round(1.45 * size)
    # What the colours mean.
    for colour, text in ((_FOR, "raises it"), (_AGAINST, "lowers it")):
        draw.rectangle((left, y + 4, left + 14, y + 18), fill=colour)
        draw.text((left + 22, y), text, _FAINT, font_of(16))
        left += 140
    left -= 280
    # A bar an action; in games with many, the rows get narrower.
    y += 40
    row = min(46, (HEIGHT - y - _MARGIN) // len(panel.action_names))
    font = font_of(15 if row > 30 else 13)
    name_width = 12 + round(max(font.getlength(name) for name in panel.action_names))
    low, high = panel.preference_range
    for i, (name, preference) in enumerate(zip(panel.action_names, frame.preferences, strict=True)):
        top = y + i * row
        colour = _CHOSEN if i == frame.action else _BAR
        share = float(np.clip((preference - low) / (high - low or 1), 0, 1))
        start, end = left + name_width, right - 58
        draw.text((left, top), name, _CHOSEN if i == frame.action else _INK, font)
        draw.rectangle((start, top + 2, end, top + 18), outline=_BAR)
        draw.rectangle((start, top + 2, start + share * (end - start), top + 18), fill=colour)
        draw.text((right, top), f"{preference:.2f}", _FAINT, font, anchor="ra")


def _short(number: float) -> str:
    """Without decimals where there are none."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.2f}"
