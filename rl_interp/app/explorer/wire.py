"""How answers are written: JSON, with arrays of floats and PNGs in base 64."""

import base64
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from starlette.responses import JSONResponse, Response

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes.effects import Decision
from rl_interp.analysis.player import Moment
from rl_interp.core.errors import HookError, RunError, UserError
from rl_interp.core.hooks import hook_point
from rl_interp.core.receptive_fields import has_positions, receptive_fields


def answer(content: dict[str, Any]) -> Response:
    return JSONResponse(content)


def array(array: NDArray[Any]) -> dict[str, Any]:
    given = np.ascontiguousarray(array, "<f4")
    return {"shape": list(given.shape), "data": base64.b64encode(given.tobytes()).decode()}


def png(picture: NDArray[np.uint8]) -> str:
    done = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return base64.b64encode(done.tobytes()).decode()


def decision(decision: Decision) -> dict[str, Any]:
    return {"preferences": array(decision.preferences), "values": array(decision.values)}


def places(loaded: Loaded, moment: Moment, at: str) -> dict[str, Any]:
    """The grid of a point's positions, and where on the observation each looks, in shares of its height and width."""
    if not has_positions(hook_point(loaded.agent, at)):
        return {"grid": None}
    try:
        found = receptive_fields(loaded.agent, at, torch.from_numpy(moment.obs[None]))
    except (UserError, RunError, HookError):
        return {"grid": None}
    height, width = moment.obs.shape[-2:]
    start, stride, size = (np.array(each) / (height, width) for each in (found.start, found.stride, found.size))
    first = start + np.array([0.5, 0.5]) / (height, width)
    return {"grid": list(found.shape), "first": first.tolist(), "stride": stride.tolist(), "field": size.tolist()}
