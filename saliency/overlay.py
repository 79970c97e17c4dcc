"""A saliency map over a screen: where the observation lies on it, in colours that say what the map can."""

import cv2
import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.observed import Observed
from rl_interp.core.errors import UserError

FOR, AGAINST = (255, 64, 48), (64, 156, 255)
"""Colours of maps with a sign: what raises the target, and what lowers it."""
MATTERS = (214, 96, 255)
"""Colour of maps without one, which say how much a place matters and not which way."""
CRITIC = (255, 64, 48)
"""Colour of the value's map over that of the policy, which is `ACTOR`'s (Greydanus et al. 2018)."""
ACTOR = (64, 156, 255)
FLOOR = 0.35
"""Share of full colour below which a map is not painted, so that its few strong places show."""
_DENSE, _THIN = 0.65, 0.25
"""Weight of the colour over the screen at full colour, and at the floor: what matters stays legible beneath it."""
_DIM, _UNSEEN = 0.9, 0.3
"""Brightness of the screen under a map, and where the agent does not look."""
_KEPT = 0.3
"""Share of its own colour that the screen keeps, so that the map's can't be taken for it."""


def overlay(
    screen: NDArray[np.uint8],
    saliency: NDArray[np.float32],
    scale: float,
    size: tuple[int, int],
    observed: Observed | None = None,
    signed: bool = True,
    critic: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """The screen `[H, W, 3]`, enlarged to `size` (height, width) and faded, with the map `[h, w]` where its observation
    lies.

    Args:
        scale: the map's value at full colour.
        observed: the part of the screen that the map is of; None: all of it.
        signed: whether the map says for (red) and against (blue), or only how much.
        critic: the value's map `[h, w]`, in units of its own full colour, over the policy's: in two colours.

    Raises:
        UserError: a map without places, as those of vectors are.
    """
    if saliency.ndim != 2:
        raise UserError(
            f"a map {saliency.shape} given, which has no places on a screen; give [h, w], and draw a vector's as bars."
        )
    height, width = screen.shape[:2]
    whole = Observed(0, 0, height, width) if observed is None else observed
    place = whole.enlarged(size[0] / height, size[1] / width)
    picture = enlarge(_faded(screen), size)
    strength = place.laid(saliency / max(scale, 1e-12), size)
    pixels, strength = picture.reshape(-1, 3), strength.ravel()  # by their numbers, which is faster than by a mask
    outside = np.flatnonzero(np.isnan(strength))
    pixels[outside] = pixels[outside] * np.float32(_UNSEEN / _DIM)
    if critic is None:
        painted = np.flatnonzero(np.abs(strength) >= FLOOR)  # which few places are, so that only they are mixed
        colours, weights = shades(strength[painted], signed, FLOOR)
    else:
        over = place.laid(critic, size).ravel()
        painted = np.flatnonzero((np.abs(strength) >= FLOOR) | (np.abs(over) >= FLOOR))
        colours, weights = shades(strength[painted], signed, FLOOR, ACTOR)
        others, second = shades(over[painted], False, FLOOR, CRITIC)
        colours = (colours * weights + others * second) / np.maximum(weights + second, 1e-6)
        weights = 1 - (1 - weights) * (1 - second)
    pixels[painted] = pixels[painted] * (1 - weights) + colours * weights
    return picture


def shades(
    strength: NDArray[np.floating], signed: bool, floor: float = 0.0, colour: tuple[int, int, int] | None = None
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The colour `[..., 3]` of values `[...]`, which are at full colour at ±1, and its weight `[..., 1]` over what lies
    beneath: 0 below `floor`. `colour` is that of maps without a sign."""
    strength = np.clip(strength, -1 if signed else 0, 1)[..., None]
    one = colour or MATTERS
    up, down = (np.array(each, np.float32) for each in ((FOR, AGAINST) if signed else (one, one)))
    size = np.abs(strength)
    thin = _THIN if floor else 0.0
    weights = np.where(size >= floor, thin + (_DENSE - thin) * (size - floor) / (1 - floor), 0.0)
    return np.where(strength > 0, up, down), weights.astype(np.float32)


def enlarge(screen: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A screen at another size (height, width): its pixels stay sharp where they grow."""
    grows = size[0] >= screen.shape[0]
    large = cv2.resize(screen, size[::-1], interpolation=cv2.INTER_NEAREST if grows else cv2.INTER_AREA)
    return np.asarray(large, np.uint8)


def _faded(screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """As it lies under a map."""
    grey = cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY)[..., None]
    return (_DIM * (_KEPT * screen + (1 - _KEPT) * grey)).astype(np.uint8)
