"""Which device to compute on, and whether bf16 pays there."""

import torch

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
    return device


def bf16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bf16 in hardware: elsewhere PyTorch emulates it, many times slower."""
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
