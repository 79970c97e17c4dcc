"""Samples that a Top-K autoencoder is fitted to per second on an accelerator: 512 wide, k 32, batches of 4,096, at
2,048, 32,768 and 262,144 latents; whole updates, feeding included.

Needs a CUDA device with bf16 and 40 GiB of memory, and triton, which PyTorch's CUDA builds bring; elsewhere it is
skipped. The peer is the dense kernel, which is plain PyTorch (not at 262,144). The limit is the encoder's product in
bf16 alone. The figures are those at 32,768 latents; the other sizes are in the details.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.measure import Result, main, skip
from benchmarks.sae_fit import CONFIG, planted
from benchmarks.sae_peers.harness import BATCH, D_IN
from rl_interp.core.device import bf16_pays
from rl_interp.sae import Activations, ArrayActivations, Feed, SAEConfig, Trainer

SAMPLES = 1 << 19  # more than latents, and as much as is kept in memory
SIZES, SHOWN, LARGEST_DENSE = (2048, 32_768, 262_144), 32_768, 32_768
NEEDED = 40 << 30  # bytes, with room to spare: what it takes has not been measured
WARM_UP, UPDATES = 5, 25  # compiling and first use; too few for latents to count as dead


def measure() -> Result:
    """Fitting a Top-K autoencoder on an accelerator."""
    data = ArrayActivations(planted(SAMPLES)["x"])
    sizes: dict[int, dict[str, float]] = {}
    for latents in SIZES:
        config = replace(CONFIG, latents=latents)
        ours, limit = fitting_rate(data, config), product_rate(latents)
        sizes[latents] = {"samples/s": round(ours), "limit": round(limit), "fraction": round(ours / limit, 4)}
        if latents <= LARGEST_DENSE:
            sizes[latents]["dense kernel"] = round(fitting_rate(data, replace(config, kernel="dense")))
    shown = sizes[SHOWN]
    details = {"device": torch.cuda.get_device_name(), "batch": BATCH, "k": CONFIG.k}
    details |= {f"{latents} latents": figures for latents, figures in sizes.items()}
    peers = {"dense kernel (PyTorch)": shown["dense kernel"]}
    return Result("sae_fit_accelerator", "samples/s", shown["samples/s"], peers, shown["limit"], details)


def fitting_rate(data: Activations, config: SAEConfig) -> float:
    """Samples per second of whole updates."""
    trainer = Trainer(Feed(data, config, device="cuda"), config)
    return BATCH / _seconds(trainer.step)


def product_rate(latents: int) -> float:
    """Samples per second of the encoder's product in bf16."""
    x, w = (torch.randn(size, device="cuda", dtype=torch.bfloat16) for size in ((BATCH, D_IN), (D_IN, latents)))
    out = torch.empty(BATCH, latents, device="cuda", dtype=torch.bfloat16)
    return BATCH / _seconds(lambda: torch.mm(x, w, out=out))


def _seconds(work: Callable[[], object]) -> float:
    for _ in range(WARM_UP):
        work()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(UPDATES):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / UPDATES


if __name__ == "__main__":
    if not torch.cuda.is_available() or not bf16_pays(torch.device("cuda")):
        skip("it needs a CUDA device with bf16, and there is none.")
    if torch.cuda.get_device_properties(0).total_memory < NEEDED:
        skip(f"it needs a device with {NEEDED >> 30} GiB of memory.")
    main(measure, ("numpy", "triton"))
