"""What every peer is measured by; needs NumPy and PyTorch alone.

    python -m benchmarks.sae_peers.<peer> data.npz <seconds> <fvu>

fits until the variance unexplained on held-out samples is `fvu`, or for `seconds`, and prints one JSON object. Only
updates are timed.

    python -m benchmarks.sae_peers.<peer> data.npz <size as JSON>

fits once for each of the factors on the peer's own step size, for as many updates as the size says, and prints one
JSON object a line.
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


@dataclass(frozen=True)
class Size:
    """Of a fit."""

    d_in: int = D_IN
    latents: int = LATENTS
    k: int = K
    batch: int = BATCH
    updates: int = 10**6
    factor: float = 1.0
    """On the step size that the peer has by default."""
    warmup: int | None = None
    """Updates over which the step size rises, where the peer lets one say; by default as it does."""


@dataclass
class Peer:
    """A library's autoencoder in its trainer."""

    setting: str
    step: Callable[[Tensor], None]
    """One update on a batch `[N, D]`."""
    reconstruct: Callable[[Tensor], Tensor]
    directions: Callable[[], Tensor]
    """`[F, D]`."""


def measure(make: Callable[[Tensor, Size], Peer]) -> None:
    """Fit what `make(samples, size)` gives and print its figures."""
    path = sys.argv[1]
    with np.load(path) as arrays:
        x, held_out, planted = (torch.from_numpy(arrays[name]) for name in ("x", "held_out", "planted"))
    if len(sys.argv) == 3:
        _compare_rates(make, x, held_out, planted, json.loads(sys.argv[2]))
        return
    seconds, target = float(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(2)
    torch.manual_seed(0)
    peer = make(x, Size())
    variance = (held_out - held_out.mean(0)).square().sum()
    spent, samples, reached, fvu = 0.0, 0, None, 1.0
    for batch in _batches(x, BATCH):
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
    figures = {
        "setting": peer.setting,
        "samples_per_second": (samples - 2 * BATCH) / spent,
        "seconds_to_target": reached,
        "seconds": spent,
        "fvu": fvu,
        "found": _found(peer, planted),
        "torch": torch.__version__,
    }
    print(json.dumps(figures))


def _compare_rates(make, x: Tensor, held_out: Tensor, planted: Tensor, sizes: dict) -> None:
    variance = (held_out - held_out.mean(0)).square().sum()
    for factor in sizes.pop("factors"):
        size = Size(**sizes, factor=factor)
        torch.manual_seed(0)
        start, peer, batches = time.perf_counter(), make(x, size), _batches(x, size.batch)
        for _ in range(size.updates):
            peer.step(next(batches))
        with torch.no_grad():
            fvu = ((held_out - peer.reconstruct(held_out)).square().sum() / variance).item()
        seconds = time.perf_counter() - start
        figures = {"setting": peer.setting, "fvu": fvu, "found": _found(peer, planted), "seconds": seconds}
        print(json.dumps(figures), flush=True)


def _found(peer: Peer, planted: Tensor) -> float:
    cosine = planted @ torch.nn.functional.normalize(peer.directions().detach().float(), dim=1).T
    return (cosine.amax(1) > 0.9).float().mean().item()


def _batches(x: Tensor, size: int):
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - size + 1, size):
            yield x[order[start : start + size]]
