"""Frames of a film of saliency: the screen with the map on it, beside what the agent thinks of each action."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rl_interp.core.envs.observed import Observed
from rl_interp.core.pictures import font_of
from rl_interp.saliency.inputs import Inputs
from rl_interp.saliency.overlay import ACTOR, CRITIC, FLOOR, enlarge, overlay, shades
from rl_interp.saliency.tracks import Tracks

HEIGHT = 640
"""Pixels of every picture, from top to bottom."""
_BESIDE_INPUTS = 460
"""Pixels of the screen, from top to bottom, above the inputs of a vector."""
_NARROWEST = 560
_WIDEST = 960
"""Pixels of a screen, from left to right, at most."""
_PANEL = 360
_MARGIN = 24
_BACKGROUND = (18, 20, 24)
_INK, _FAINT = (236, 238, 240), (140, 146, 154)
_BAR, _CHOSEN = (86, 96, 112), (255, 176, 59)


@dataclass(frozen=True)
class Bars:
    """What the bars, one an action, stand for."""

    title: str
    low: float
    """Value at the left end; bars begin at 0."""
    high: float
    form: str = "+.2f"
    """How a value is written, as `format` takes it."""

    @staticmethod
    def of_advantages(advantages: Sequence[NDArray[np.float32]]) -> "Bars":
        """For `advantage(preferences)` of some steps: symmetric, up to the 99th percentile of their sizes."""
        sizes = np.abs(np.concatenate(advantages))
        top = float(np.quantile(sizes[np.isfinite(sizes)], 0.99)) or 1.0
        return Bars("advantage: value less the actions' mean", -top, top)

    @staticmethod
    def of_means(means: Sequence[NDArray[np.float32]], sampled: bool = False) -> "Bars":
        """For the mean of continuous actions at some steps, or samples: symmetric, up to the largest."""
        top = float(np.abs(np.concatenate(means)).max()) or 1.0
        return Bars("action, as sampled" if sampled else "mean of the action", -top, top)

    @staticmethod
    def of_probabilities() -> "Bars":
        """For `probabilities(logits)`."""
        return Bars("probability", 0.0, 1.0, ".0%")


@dataclass(frozen=True)
class Panel:
    """What stays the same over a video."""

    action_names: Sequence[str]
    target: str
    method: str
    scale: float
    """The map's value at full colour: one for the whole video, so that frames can be compared."""
    bars: Bars
    signed: bool = True
    """Whether the map says for and against, or only how much."""
    inputs: Inputs | None = None
    """Of an agent that sees a vector: what its maps are of."""
    critic_scale: float | None = None
    """Of a film of policy and value at once: the value's map at full colour."""
    beside: Sequence["Beside"] = ()
    """Further methods, whose maps are drawn between the first and the panel."""
    tracks: Tracks | None = None
    """Numbers over the film's time, under all of it."""


@dataclass(frozen=True)
class Beside:
    """A further method of a film."""

    method: str
    scale: float
    signed: bool


@dataclass(frozen=True)
class Frame:
    """What one step shows."""

    screen: NDArray[np.uint8]
    """RGB `[H, W, 3]`, of any size."""
    saliency: NDArray[np.float32]
    """`[h, w]`, or `[D]` of a vector."""
    bars: NDArray[np.float32]
    """`[A]`; an action that is ruled out has -inf, and no bar."""
    action: int | None
    """The chosen one; None of continuous actions, of which none is chosen."""
    episode_return: float
    step: int
    notes: Sequence[str] = field(default_factory=tuple)
    """Further lines for the panel."""
    observed: Observed | None = None
    """The part of the screen that the map is of; None: all of it."""
    critic: NDArray[np.float32] | None = None
    """`[h, w]`: the value's map, over the policy's."""
    beside: Sequence[NDArray[np.float32]] = ()
    """`[h, w]` of each further method."""
    number: int = 0
    """Its place in the film, for tracks and inputs."""


def advantages(preferences: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[A]`: Q-values less their mean over the actions that are not ruled out by -inf."""
    return preferences - preferences[np.isfinite(preferences)].mean()


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[A]`: softmax."""
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def compose(frame: Frame, panel: Panel) -> NDArray[np.uint8]:
    """The picture, uint8 RGB `[H, W, 3]`, both even. The screen's shape sets its width; it is `HEIGHT` high, or what
    the inputs of a vector need beneath a smaller screen, and what tracks need under either."""
    picture = _without_tracks(frame, panel)
    if panel.tracks is None:
        return picture
    return np.concatenate([picture, panel.tracks.drawn(picture.shape[1], frame.number)])


def _without_tracks(frame: Frame, panel: Panel) -> NDArray[np.uint8]:
    inputs = panel.inputs
    height = HEIGHT if inputs is None else _BESIDE_INPUTS
    size = _fitted(frame.screen.shape, height)
    width = size[1] if inputs is None else max(size[1], _NARROWEST)
    place = (height - size[0]) // 2, (width - size[1]) // 2
    canvas = np.full((height + (inputs.height if inputs else 0), width + _PANEL, 3), _BACKGROUND, np.uint8)
    shown = _mapped(frame, panel, size) if inputs is None else enlarge(frame.screen, size)
    canvas[place[0] : place[0] + size[0], place[1] : place[1] + size[1]] = shown
    image = Image.fromarray(canvas)
    if inputs is not None:
        inputs.draw(image, height, width, frame.number, panel.scale, panel.signed)
    elif frame.observed is not None:
        _outline(
            image, frame.observed.enlarged(size[0] / frame.screen.shape[0], size[1] / frame.screen.shape[1]), place
        )
    _draw_panel(image, width + _MARGIN, height, frame, panel)
    if not panel.beside or inputs is not None:
        return np.asarray(image)
    drawn = np.asarray(image)
    return np.concatenate([drawn[:, :width], *_others(frame, panel, size, height), drawn[:, width:]], 1)


def _mapped(frame: Frame, panel: Panel, size: tuple[int, int]) -> NDArray[np.uint8]:
    critic = None if frame.critic is None or panel.critic_scale is None else frame.critic / panel.critic_scale
    return overlay(frame.screen, frame.saliency, panel.scale, size, frame.observed, panel.signed, critic)


def _others(frame: Frame, panel: Panel, size: tuple[int, int], height: int) -> Iterator[NDArray[np.uint8]]:
    """The screen with each further method's map, and its name."""
    for each, saliency in zip(panel.beside, frame.beside, strict=True):
        column = np.full((height, size[1] + 2 * (_MARGIN // 4), 3), _BACKGROUND, np.uint8)
        top, left = (height - size[0]) // 2, _MARGIN // 4
        drawn = overlay(frame.screen, saliency, each.scale, size, frame.observed, each.signed)
        column[top : top + size[0], left : left + size[1]] = drawn
        image = Image.fromarray(column)
        draw, font = ImageDraw.Draw(image), font_of(16)
        wide = font.getlength(each.method) + 16
        draw.rectangle((left, height - 30, left + wide, height - 1), _BACKGROUND)
        draw.text((left + 8, height - 15), each.method, _INK, font, anchor="lm")
        yield np.asarray(image)


def _fitted(shape: tuple[int, ...], height: int) -> tuple[int, int]:
    """Height and width, both even, of a screen `shape` enlarged to a height, or to `_WIDEST` if that is less."""
    times = min(height / shape[0], _WIDEST / shape[1])
    return 2 * round(times * shape[0] / 2), 2 * round(times * shape[1] / 2)


def _outline(image: Image.Image, observed: Observed, place: tuple[int, int]) -> None:
    """Frame the part of the screen that the agent sees, where that is not all of it."""
    width, height = image.width - _PANEL, image.height - 2 * place[0]
    if (observed.top, observed.left, observed.bottom, observed.right) == (0, 0, height, width):
        return
    screen = Image.new("L", (width, height))
    box = [round(edge) for edge in (observed.left, observed.top, observed.right - 1, observed.bottom - 1)]
    ImageDraw.Draw(screen).rectangle(box, outline=160)
    image.paste(_FAINT, (0, place[0]), screen)


def _draw_panel(image: Image.Image, left: int, bottom: int, frame: Frame, panel: Panel) -> None:
    draw = ImageDraw.Draw(image)
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
    _draw_legend(image, (left, y + 6, right), panel)
    _draw_bars(draw, (left, y + 70, right, bottom - _MARGIN), frame, panel)


def _draw_legend(image: Image.Image, place: tuple[int, int, int], panel: Panel) -> None:
    """What the colours mean, and how much full colour is."""
    left, top, right = place
    draw, font = ImageDraw.Draw(image), font_of(13)
    if panel.critic_scale is not None:
        _draw_two(image, place, panel.scale, panel.critic_scale)
        return
    image.paste(_all_shades(right - left, panel.signed, 0.0 if panel.inputs else FLOOR), (left, top))
    low, high = ("lowers it by", "raises it by") if panel.signed else ("does not matter", "matters:")
    amount = f"{panel.scale:.2g}"
    draw.text((left, top + 16), f"{low} {amount}" if panel.signed else low, _FAINT, font)
    draw.text((right, top + 16), f"{high} {amount}", _FAINT, font, anchor="ra")


@lru_cache(maxsize=4)
def _all_shades(width: int, signed: bool, floor: float) -> Image.Image:
    """From the least to the most, over grey; the same in every frame."""
    strength = np.linspace(-1 if signed else 0, 1, width, dtype=np.float32)
    colours, weights = shades(np.tile(strength, (12, 1)), signed, floor)
    return Image.fromarray((70.0 * (1 - weights) + colours * weights).astype(np.uint8))


def _draw_two(image: Image.Image, place: tuple[int, int, int], policy: float, value: float) -> None:
    """The two colours of a film of policy and value, and how much each is at full colour."""
    left, top, right = place
    draw, font, middle = ImageDraw.Draw(image), font_of(13), (left + right) // 2
    for x, colour, text in ((left, ACTOR, f"policy: {policy:.2g}"), (middle, CRITIC, f"value: {value:.2g}")):
        draw.rectangle((x, top, x + 12, top + 12), colour)
        draw.text((x + 18, top + 6), text, _FAINT, font, anchor="lm")


def _draw_bars(draw: ImageDraw.ImageDraw, place: tuple[int, int, int, int], frame: Frame, panel: Panel) -> None:
    """A bar an action; in games with many, the rows get narrower."""
    left, top, right, bottom = place
    bars = panel.bars
    draw.text((left, top), bars.title, _FAINT, font_of(13))
    top += 26
    row = min(46, (bottom - top) // len(panel.action_names))
    font = font_of(15 if row > 30 else 13 if row > 16 else 11)
    thick = min(16, row - 4)
    start = left + 12 + round(max(font.getlength(name) for name in panel.action_names))
    end = right - 58

    def across(value: float) -> float:
        return start + float(np.clip((value - bars.low) / (bars.high - bars.low), 0, 1)) * (end - start)

    for i, (name, value) in enumerate(zip(panel.action_names, frame.bars, strict=True)):
        y = top + i * row
        colour = _CHOSEN if i == frame.action else _BAR
        draw.text((left, y + thick / 2), name, _CHOSEN if i == frame.action else _INK, font, anchor="lm")
        draw.rectangle((start, y, end, y + thick), outline=(48, 54, 64))
        if np.isfinite(value):
            begin, stop = sorted((across(0), across(value)))
            draw.rectangle((begin, y, stop, y + thick), colour)
        draw.text((right, y + thick / 2), format(value, bars.form), _FAINT, font, anchor="rm")
    if bars.low < 0:
        draw.line((across(0), top - 3, across(0), top + row * len(frame.bars) - row + thick + 3), _FAINT)


def _short(number: float) -> str:
    """Without decimals where there are none."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.2f}"
