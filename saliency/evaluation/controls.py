"""Maps that know nothing of the agent: what a method must beat to have said anything about it."""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Control = Callable[[Tensor, Tensor, int], NDArray[np.float32]]
"""`(observations [B, C, H, W], those before them, seed) -> [B, H, W]`."""


def edges(obs: Tensor, before: Tensor, seed: int) -> NDArray[np.float32]:
    """The size of the brightness's slope (Sobel), over all channels."""
    images = obs.float().cpu().numpy()
    slopes = [[[cv2.Sobel(plane, cv2.CV_32F, *way) for way in ((1, 0), (0, 1))] for plane in image] for image in images]
    return np.sqrt(np.square(np.array(slopes, np.float32)).sum((1, 2)))


def frame_difference(obs: Tensor, before: Tensor, seed: int) -> NDArray[np.float32]:
    """What is different from the observation before."""
    return (obs.float() - before.float()).abs().sum(1).cpu().numpy()


def centre(obs: Tensor, before: Tensor, seed: int) -> NDArray[np.float32]:
    """A blob in the middle, a sixth of the picture wide."""
    height, width = obs.shape[-2:]
    rows, columns = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 6)) ** 2) for n in (height, width))
    return np.tile(np.float32(rows[:, None] * columns), (len(obs), 1, 1))


def noise(obs: Tensor, before: Tensor, seed: int) -> NDArray[np.float32]:
    """Uniform random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(obs), *obs.shape[-2:], generator=generator).numpy()


CONTROLS: dict[str, Control] = {
    "edges": edges,
    "frame difference": frame_difference,
    "centre blob": centre,
    "random": noise,
}
