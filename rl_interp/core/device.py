"""Which device to compute on, and which precisions pay there."""

import contextlib
import ctypes
import sys
from functools import cache
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


def trim_memory() -> None:
    """Have the C library give freed memory back to the system, where it is glibc. It keeps blocks of up to 32 MiB, in
    which what is allocated next, and stays, leaves holes: of a layer's activations at many checkpoints, read one after
    another, as much as they all are."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def computes_in_bf16(precision: str, device: torch.device) -> bool:
    """The precision that a configuration's `precision` (auto, fp32 or bf16) means on a device.

    Raises:
        UserError: bf16 is asked for, and the device's products in it are wrong.
    """
    if precision == "bf16" and not bf16_is_right(device):
        raise UserError(f"precision bf16 given, and products in it are wrong on {device}; give fp32 or auto.")
    return precision == "bf16" or (precision == "auto" and bf16_pays(device))


def bf16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware, elsewhere PyTorch emulates it, many times slower; and rightly."""
    return has_bf16(device) and bf16_is_right(device)


def int8_pays(device: torch.device) -> bool:
    """Whether PyTorch multiplies int8 by the processor's own instructions (VNNI), elsewhere in a plain loop; and
    rightly."""
    return has_int8(device) and all(map(int8_is_right, _WIDTHS))


def has_bf16(device: torch.device) -> bool:
    """Whether the device says that it multiplies bf16."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def has_int8(device: torch.device) -> bool:
    """Whether the processor says that it multiplies int8."""
    return device.type == "cpu" and torch.cpu._is_vnni_supported() and torch.backends.mkldnn.is_available()


# What a processor can do is not what is done: with ONEDNN_MAX_CPU_ISA set, or in an emulator, oneDNN takes other
# instructions, of which some add int8 products up in 16 bits. So each fast product is tried once in a process.


@cache
def bf16_is_right(device: torch.device) -> bool:
    """Whether products in bf16 of numbers without rounding, summed in more bits than bf16 has, are what they should be:
    sums of ones stop at 256 in bf16, and sums of large numbers show what saturates."""
    return all(_bf16_product_is_right(64, width, 48, device) for width in _WIDTHS)


@cache
def int8_is_right(width: int) -> bool:
    """Whether `int8_product` of rows this wide is exact for the largest numbers that there are."""
    return all(_int8_product_is_right(samples, width, latents) for samples, latents in ((1, 3), (16, 64), (130, 257)))


def int8_product(rows: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """`[N, F]`, int32, of `rows [N, D]` and `latents [F, D]`, int8."""
    product = torch.empty(len(rows), len(latents), dtype=torch.int32)
    # PyTorch makes the product twice as fast into a tensor that it is given.
    return torch.ops.aten._int_mm.out(rows, latents.T, out=product)


_WIDTHS = (2, 3, 8, 16, 33, 64, 512)


def _int8_product_is_right(samples: int, width: int, latents: int) -> bool:
    # Rows and latents of one number each, which is as large as it can be in one of each sign: their product is known.
    row, latent = (torch.tensor([127, -127, 1, 90])[torch.arange(n) % 4] for n in (samples, latents))
    sides = (each.to(torch.int8)[:, None].repeat(1, width) for each in (row, latent))
    with contextlib.suppress(RuntimeError):
        return torch.equal(int8_product(*sides).long(), width * row[:, None] * latent)
    return False


def _bf16_product_is_right(samples: int, width: int, latents: int, device: torch.device) -> bool:
    row, latent = (torch.tensor([1.0, -2.0, 96.0])[torch.arange(n) % 3] for n in (samples, latents))
    sides = (each.bfloat16()[:, None].repeat(1, width).to(device) for each in (row, latent))
    with contextlib.suppress(RuntimeError), torch.autocast(device.type, enabled=False):
        product = torch.mm(next(sides), next(sides).T).double().cpu()
        return torch.allclose(product, width * row[:, None].double() * latent.double(), rtol=2**-8, atol=0)
    return False
