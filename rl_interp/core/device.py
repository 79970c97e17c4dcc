"""Which device to compute on, and which precisions pay there."""

import contextlib
import ctypes
import sys
from typing import Any

import torch
from numpy.typing import NDArray

from rl_interp.core.errors import UserError


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is the accelerator if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} is not usable here ({str(error).splitlines()[0]}); give cpu or auto."
        ) from None
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # where streams and graphs are made, and Triton's loops run
    return device


def send(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """The array as a tensor on the device; from pinned memory to an accelerator, so that nobody waits for the copy
    (PyTorch keeps the memory until it is done)."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def keep_memory() -> None:
    """Have the C library keep freed memory for the next allocation of its size, where it is glibc.

    By default it hands large blocks back to the system at once and gets them as zeroed pages at the next update:
    a quarter of a convolutional learner's time on a CPU.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_MMAP_THRESHOLD, 2**30)
            libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def computes_in_bf16(precision: str, device: torch.device) -> bool:
    """What a configuration's `precision` (auto, fp32 or bf16) comes to on a device."""
    return precision == "bf16" or (precision == "auto" and bf16_pays(device))


def bf16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware: elsewhere PyTorch emulates it, many times slower."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def int8_pays(device: torch.device) -> bool:
    """Whether PyTorch multiplies int8 by the processor's own instructions (VNNI): elsewhere in a plain loop."""
    return device.type == "cpu" and torch.cpu._is_vnni_supported() and torch.backends.mkldnn.is_available()
