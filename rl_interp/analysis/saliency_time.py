"""What in the last steps mattered to one decision of an agent with memory: a sheet of maps, a share for each step."""

import math
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment
from rl_interp.analysis.playing import follow
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.files import require_writable
from rl_interp.core.pictures import font_of, write_png
from rl_interp.core.progress import SILENT, Progress
from rl_interp.saliency import is_signed, maps_through_time
from rl_interp.saliency.overlay import overlay
from rl_interp.saliency.targets import parse_target

SEARCHED = 200
"""Steps among which the decision is looked for, if none is named: that at which the preferences lie farthest apart."""
_SIDE, _CAPTION = 240, 30
"""Pixels of a picture along its longer side, and of the words under it."""
_BACKGROUND, _INK = (18, 20, 24), (236, 238, 240)


def through_time(
    loaded: Loaded,
    path: Path,
    step: int | None = None,
    last: int = 8,
    method: str = "perturbation",
    target: str = "advantage",
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Map each of the `last` observations up to a decision, each changed alone while the rest went as it did, and write
    a sheet of them to `path`, a PNG, in colours of one scale.

    Args:
        step: the decision's; None: of the first `SEARCHED` that at which the preferences lie farthest apart.
        target: as `parse_target` reads it, of the decision.

    Returns:
        What `saliency time` prints: `shares` sum to 1 over `steps`, each that of its map's |values|; 0 throughout where
        nothing mattered.

    Raises:
        UserError: an agent without memory, observations that are vectors, an unknown method or target, a name that does
            not end in .png, or an episode that ends before the step.
    """
    at_least_one(last=last)
    if path.suffix != ".png":
        raise UserError(f"{path} given for a sheet of maps; its name must end in .png.")
    require_writable(path)
    if loaded.agent.initial_state(1) == ():
        raise UserError(
            f"{loaded.run.path} has no memory, so nothing but what it sees now matters; use `rl-interp saliency`."
        )
    if loaded.env.observation_kind == "vector":
        raise UserError(f"{loaded.env.id} shows vectors, which a sheet can't show; use saliency.maps_through_time.")
    env = make_labelled(loaded.env)
    explained = parse_target(target, env.action_names)
    step = _most_decided(loaded, seed) if step is None else step
    moments = _until(loaded, step, last, seed)
    device = loaded.agent.device
    with progress.bar(f"Mapping {len(moments)} steps", 1, "decision"):
        maps = maps_through_time(
            loaded.agent, torch.from_numpy(np.stack([each.obs for each in moments])).to(device),
            torch.tensor([int(each.action) for each in moments], device=device),  # pyright: ignore[reportArgumentType]
            [each.state for each in moments], explained, method,
        )  # fmt: skip
    sizes = np.abs(maps.astype(np.float64)).sum((1, 2))
    shares = sizes / max(float(sizes.sum()), 1e-300)
    write_png(path, _sheet(moments, maps, shares, is_signed(method, explained)))
    return {
        "sheet": str(path), "decision": step, "action": env.action_names[int(moments[-1].action)],  # pyright: ignore
        "steps": [each.step for each in moments], "shares": shares.tolist(), "method": method, "target": target,
        "seed": seed,
    }  # fmt: skip


def _most_decided(loaded: Loaded, seed: int) -> int:
    spread: dict[int, float] = {}
    for each in islice(follow(loaded, make_labelled(loaded.env), seed), SEARCHED):
        if each.controllable:
            spread[each.step] = float(np.ptp(each.preferences[np.isfinite(each.preferences)]))
    if not spread:
        raise UserError(f"the first {SEARCHED} steps of seed {seed} are not in the agent's control; name a later step.")
    return max(spread, key=lambda step: spread[step])


def _until(loaded: Loaded, step: int, last: int, seed: int) -> list[Moment]:
    """Up to `last` moments, the last one that of the step."""
    moments = deque(islice(follow(loaded, make_labelled(loaded.env), seed), step + 1), maxlen=last)
    if moments[-1].step < step:
        raise UserError(
            f"step {step} given, and the episode of seed {seed} ends at step {moments[-1].step}; give an earlier one."
        )
    return list(moments)


def _sheet(
    moments: list[Moment], maps: NDArray[np.float32], shares: NDArray[np.float64], signed: bool
) -> NDArray[np.uint8]:
    """Rows of at most eight, in order of time."""
    scale = max(float(np.quantile(np.abs(maps), 0.995)), float(np.abs(maps).max()) / 4)
    height, width = moments[0].screen.shape[:2]
    size = round(_SIDE * height / max(height, width)), round(_SIDE * width / max(height, width))
    across = min(8, len(moments))
    rows = math.ceil(len(moments) / across)
    sheet = Image.new("RGB", (across * (size[1] + 8), rows * (size[0] + _CAPTION)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for number, (moment, drawn, share) in enumerate(zip(moments, maps, shares, strict=True)):
        left, top = (number % across) * (size[1] + 8) + 4, number // across * (size[0] + _CAPTION)
        picture = overlay(moment.screen, drawn, scale, size, moment.observed, signed)
        sheet.paste(Image.fromarray(picture), (left, top))
        before = len(moments) - 1 - number
        text = f"{f'{before} before' if before else 'the decision'}: {share:.0%}"
        draw.text((left + size[1] / 2, top + size[0] + _CAPTION / 2), text, _INK, font_of(15), anchor="mm")
    return np.asarray(sheet)
