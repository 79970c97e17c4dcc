"""Pictures of the plane."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rl_interp.core.envs.two_ways.config import NEAR, POINTS, POST

_SCALE, _HALF = 140, (1.4, 1.1)
"""Pixels of a unit, and how many units are shown to each side, across and down."""
_PAPER, _POST, _LINE, _GOAL, _POINT = (255, 255, 255), (120, 120, 120), (170, 190, 230), (60, 160, 90), (40, 80, 180)


def drawn(trail: Sequence[NDArray[np.floating]], goal: NDArray[np.floating]) -> NDArray[np.uint8]:
    """RGB `[H, W, 3]`: the post, places that can be asked for as rings, the goal filled, and the point with its
    trail."""
    import cv2

    picture = np.full((int(2 * _HALF[1] * _SCALE), int(2 * _HALF[0] * _SCALE), 3), _PAPER, np.uint8)
    cv2.circle(picture, _at(np.zeros(2)), int(POST * _SCALE), _POST, -1, cv2.LINE_AA)
    for place in POINTS.values():
        cv2.circle(picture, _at(place), int(NEAR * _SCALE), _GOAL, 1, cv2.LINE_AA)
    cv2.circle(picture, _at(goal), int(NEAR * _SCALE), _GOAL, -1, cv2.LINE_AA)
    line = np.array([_at(place) for place in trail], np.int32)
    cv2.polylines(picture, [line], False, _LINE, 3, cv2.LINE_AA)
    cv2.circle(picture, _at(trail[-1]), 8, _POINT, -1, cv2.LINE_AA)
    return picture


def _at(place: NDArray[np.floating]) -> tuple[int, int]:
    """Column and row of the pixel."""
    return int((place[0] + _HALF[0]) * _SCALE), int((_HALF[1] - place[1]) * _SCALE)
