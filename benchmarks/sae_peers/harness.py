"""What every peer is measured by; needs NumPy and PyTorch alone.

    python -m benchmarks.sae_peers.<peer> data.npz <seconds> <fvu>

fits until the variance unexplained on held-out samples is `fvu`, or for `seconds`, and prints one JSON object. Only
updates are timed.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

D_IN, LATENTS, K, BATCH = 512, 2048, 32, 4096


@dataclass
class Peer:
    """A library's autoencoder in its trainer."""

    setting: str
    step: Callable[[Tensor], None]
    """One update on a batch `[N, D]`."""
    reconstruct: Callable[[Tensor], Tensor]
    directions: Callable[[], Tensor]
    """`[F, D]`."""


def measure(make: Callable[[Tensor], Peer]) -> None:
    """Fit what `make(samples)` gives and print its figures."""
    path, seconds, target = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(2)
    torch.manual_seed(0)
    with np.load(path) as arrays:
        x, held_out, planted = (torch.from_numpy(arrays[name]) for name in ("x", "held_out", "planted"))
    peer = make(x)
    variance = (held_out - held_out.mean(0)).square().sum()
    spent, samples, reached, fvu = 0.0, 0, None, 1.0
    for batch in _batches(x):
        start = time.perf_counter()
        peer.step(batch)
        spent += time.perf_counter() - start
        samples += len(batch)
        if samples // BATCH % 10 == 0:
            with torch.no_grad():
                fvu = ((held_out - peer.reconstruct(held_out)).square().sum() / variance).item()
        if samples == 2 * BATCH:
            spent = 0.0  # what is set up in the first updates
        if reached is None and fvu <= target:
            reached = spent
        if spent >= seconds or reached is not None:
            break
    cosine = planted @ torch.nn.functional.normalize(peer.directions().detach().float(), dim=1).T
    figures = {
        "setting": peer.setting,
        "samples_per_second": (samples - 2 * BATCH) / spent,
        "seconds_to_target": reached,
        "seconds": spent,
        "fvu": fvu,
        "found": (cosine.amax(1) > 0.9).float().mean().item(),
        "torch": torch.__version__,
    }
    print(json.dumps(figures))


def _batches(x: Tensor):
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            yield x[order[start : start + BATCH]]
