"""Where the positions of a convolutional layer look: the pixel, and the cell of a grid world, that each is about."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint
from rl_interp.core.envs.config import EnvConfig
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import hook_point, run_with_cache

_PADS = (nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d)
_MOVING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, *_PADS)


@dataclass(frozen=True)
class ReceptiveFields:
    """The centres of the receptive fields of a layer's positions, in pixels of the observation: position i is about
    pixel `start + stride · i`, the first pixel being 0."""

    shape: tuple[int, int]
    """(H, W) of the layer."""
    start: tuple[float, float]
    stride: tuple[float, float]
    size: tuple[int, int]
    """(H, W) of the field of one position, in pixels."""

    def pixels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`[H]` and `[W]`: rows and columns of the observation."""
        rows, columns = (np.arange(n, dtype=np.float64) for n in self.shape)
        return self.start[0] + self.stride[0] * rows, self.start[1] + self.stride[1] * columns

    def cells(self, env: EnvConfig) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`[H]` and `[W]`: rows and columns of the grid world's cells; they may lie outside of it."""
        rows, columns = (np.floor((p - _margin(env)) / _cell(env)).astype(np.int64) for p in self.pixels())
        return rows, columns

    def nearest(self, env: EnvConfig, cells: NDArray[np.integer]) -> NDArray[np.int64]:
        """`[M, 2]`: the position whose centre is nearest to that of each cell `[M, 2]`."""
        centres = _margin(env) + _cell(env) * cells + (_cell(env) - 1) / 2
        found = [abs(pixels[None] - centres[:, i, None]).argmin(1) for i, pixels in enumerate(self.pixels())]
        return np.stack(found, 1)


def spatial_points(agent: Agent) -> list[str]:
    """The hook points that have positions."""
    return [name for name, point in agent.hook_points.items() if point.kind == "spatial"]


def check_spatial(agent: Agent, at: str) -> None:
    """Raise a `HookError` where a hook point is not there or has no positions."""
    if hook_point(agent, at).kind != "spatial":
        raise HookError(f"{at!r} has no positions; give one of {', '.join(spatial_points(agent)) or 'another agent'}.")


@torch.no_grad()
def receptive_fields(agent: Agent, at: str, obs: Tensor) -> ReceptiveFields:
    """The receptive fields of a hook point with positions, for observations like `obs [1, C, H, W]`.

    Follows kernel sizes, strides, paddings and dilations of the convolutions, pools and pads that run before the point
    (Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks"), the branches of residual blocks
    being of stride 1 and padded to the same size. A recurrent layer sees all of the observation sooner or later; where
    it is as large, as in a DRC, each of its positions is about the pixel that it is at.

    Raises:
        HookError: no such point, or one without positions.
        UserError: the layer's size is not what follows from them.
    """
    if is_recurrent_map(hook_point(agent, at)):
        return _recurrent(agent, at, obs)
    check_spatial(agent, at)
    passed: list[Any] = []
    handles = [
        module.register_forward_hook(lambda module, args, out: passed.append(module))
        for module in agent.modules()
        if isinstance(module, _MOVING)
    ]
    before: list[Any] = []
    try:
        _, cache = run_with_cache(agent, obs, names=[at], hooks={at: lambda value, site: before.extend(passed)})
    finally:
        for handle in handles:
            handle.remove()
    found = [_follow(before, axis, obs.shape[2 + axis]) for axis in (0, 1)]
    shape = (cache[at].shape[-2], cache[at].shape[-1])
    if shape != tuple(count for count, _, _, _ in found):
        raise UserError(
            f"{at!r} has {shape} positions, and its convolutions and pools make {tuple(s for s, _, _, _ in found)}: "
            "what its positions look at can't be told where layers are functions, not modules."
        )
    (_, start_y, stride_y, height), (_, start_x, stride_x, width) = found
    return ReceptiveFields(shape, (start_y, start_x), (stride_y, stride_x), (height, width))


def has_positions(point: HookPoint) -> bool:
    """Whether its values lie at places of the observation."""
    return point.kind == "spatial" or is_recurrent_map(point)


def is_recurrent_map(point: HookPoint) -> bool:
    """Whether they do, and are computed time after time."""
    return point.kind == "recurrent" and point.axes.endswith("C H W")


def _recurrent(agent: Agent, at: str, obs: Tensor) -> ReceptiveFields:
    _, cache = run_with_cache(agent, obs, names=[at])
    shape, seen = tuple(cache[at].shape[-2:]), (obs.shape[-2], obs.shape[-1])
    if shape != seen:
        raise UserError(f"{at!r} has {shape} positions for {seen} pixels: it can't be told what each of them is about.")
    # Around whichever cell, a field of this size has all of them.
    return ReceptiveFields(seen, (0.0, 0.0), (1.0, 1.0), (2 * seen[0] - 1, 2 * seen[1] - 1))


def _follow(modules: list[Any], axis: int, size: int) -> tuple[int, float, float, int]:
    """Size, first centre, stride and width of a field along one axis after some convolutions and pools."""
    start, stride, field = 0.0, 1.0, 1
    for module in modules:
        if isinstance(module, nn.AdaptiveAvgPool2d):  # a resize: position i is the mean of the i-th of equal parts
            assert isinstance(module.output_size, tuple)
            part = size / (size := int(module.output_size[axis] or size))
            start, stride = start + (part - 1) / 2 * stride, stride * part
            continue
        if isinstance(module, _PADS):  # left, right, top, bottom
            before, after = module.padding[2 - 2 * axis : 4 - 2 * axis]
            size, start = size + before + after, start - before * stride
            continue
        kernel, step, padding, dilation = (
            _along(getattr(module, name, 1), axis) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        size = (size + 2 * padding - dilation * (kernel - 1) - 1) // step + 1
        start += (dilation * (kernel - 1) / 2 - padding) * stride
        field += dilation * (kernel - 1) * int(stride)
        stride *= step
    return size, start, stride, field


def _along(value: int | tuple[int, int], axis: int) -> int:
    return value[axis] if isinstance(value, tuple) else value


def _cell(env: EnvConfig) -> int:
    if env.cell_pixels is None:
        raise UserError(f"{env.id} is no grid of cells, so its pixels are of none; give a maze, MiniGrid or Crafter.")
    return env.cell_pixels[0]


def _margin(env: EnvConfig) -> int:
    return 0 if env.cell_pixels is None else env.cell_pixels[1]
