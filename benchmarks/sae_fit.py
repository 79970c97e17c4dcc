"""Samples that a Top-K autoencoder is fitted to per second: 512 wide, 2,048 latents, k 32, batches of 4,096, two
threads, on 200,000 samples in which 1,024 planted directions are active, 16 at a time.

The peers are four libraries, each with its best documented setting, in environments of their own, which

    python -m benchmarks.sae_fit --install

makes under `.peers/` (they want other versions of PyTorch, and SAELens brings 80 packages); those that are not there
are left out. Also measured: the seconds until 6% of the variance is unexplained, how many planted directions are
found, and what is dead. The limit is the encoder's product alone, in int8 (or bf16) where the processor has it.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import Result, main
from benchmarks.sae_peers.harness import BATCH, D_IN, LATENTS, K
from rl_interp.core.device import int8_pays
from rl_interp.sae import ArrayActivations, Feed, SAEConfig, Trainer, evaluate, largest_cosines

SAMPLES, PLANTED, ACTIVE = 200_000, 1024, 16
TARGET_FVU, MOST_SECONDS = 0.06, 90
ROOT = Path(__file__).parent.parent
PEERS = {
    "saelens": ["sae-lens"],
    "dictionary_learning": ["dictionary-learning"],
    "sparsify": ["eai-sparsify", "torchvision"],
    "overcomplete": ["overcomplete", "matplotlib<3.9"],
}
CONFIG = SAEConfig(latents=LATENTS, k=K, batch_size=BATCH, epochs=2.0, learning_rate=2e-2)


def planted(samples: int = SAMPLES) -> dict[str, np.ndarray]:
    """Sparse sums of random directions with a little noise, which is 1.2% of the variance."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(PLANTED, D_IN)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x = np.empty((samples + 8192, D_IN), np.float32)
    for start in range(0, len(x), 16_384):
        rows = len(x[start : start + 16_384])
        strength = rng.uniform(0.5, 1.5, (rows, PLANTED)) * (rng.random((rows, PLANTED)) < ACTIVE / PLANTED)
        x[start : start + rows] = strength.astype(np.float32) @ directions + 0.02 * rng.normal(size=(rows, D_IN))
    return {"x": x[:samples], "held_out": x[samples:], "planted": directions}


def ours(data: dict[str, np.ndarray]) -> dict[str, Any]:
    """Speed over whole updates, and a fit from the raw array to the end, preparation included."""
    source = ArrayActivations(data["x"])
    trainer = Trainer(Feed(source, CONFIG), CONFIG)
    for _ in range(5):
        trainer.step()
    start, before = time.perf_counter(), trainer.samples
    trainer.run()
    rate = (trainer.samples - before) / (time.perf_counter() - start)
    start = time.perf_counter()
    trainer = Trainer(Feed(source, CONFIG), CONFIG)
    prepared = time.perf_counter() - start
    trainer.run()
    seconds, sae = time.perf_counter() - start, trainer.sae()
    held_out = evaluate(sae, ArrayActivations(data["held_out"]), np.arange(len(data["held_out"])))
    cosine = largest_cosines(torch.from_numpy(data["planted"]), sae.W_dec)
    return {
        "samples_per_second": rate,
        "seconds_to_target": seconds if held_out.fvu <= TARGET_FVU else None,
        "of which preparation": prepared,
        "fvu": held_out.fvu,
        "found": (cosine > 0.9).float().mean().item(),
        "dead": evaluate(sae, source, np.arange(SAMPLES)).dead_fraction,
    }


def product_limit() -> float:
    """Samples per second of the encoder's product, in the precision in which latents are selected."""
    if int8_pays(torch.device("cpu")):
        x, w = (torch.randint(-127, 128, size, dtype=torch.int8) for size in ((BATCH, D_IN), (LATENTS, D_IN)))
        product, out = torch.ops.aten._int_mm.out, torch.empty(BATCH, LATENTS, dtype=torch.int32)
    else:
        x, w = torch.randn(BATCH, D_IN).bfloat16(), torch.randn(LATENTS, D_IN).bfloat16()
        product, out = torch.mm, torch.empty(BATCH, LATENTS, dtype=torch.bfloat16)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        product(x, w.T, out=out)
        times.append(time.perf_counter() - start)
    return BATCH / min(times)


def measure() -> Result:
    """Fitting a Top-K autoencoder."""
    torch.set_num_threads(2)
    data = planted()
    figures = ours(data)
    details: dict[str, Any] = {"ours": _rounded(figures), "latents": LATENTS, "k": K, "batch": BATCH}
    peers = {}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", **data)  # pyright: ignore[reportArgumentType]
        for peer in PEERS:
            if not python_of(peer).exists():
                continue
            command = [str(python_of(peer)), "-m", f"benchmarks.sae_peers.{peer}", f"{folder}/data.npz"]
            done = subprocess.run(
                [*command, str(MOST_SECONDS), str(TARGET_FVU)], capture_output=True, text=True, cwd=ROOT
            )
            if done.returncode:
                raise RuntimeError(f"{peer} failed:\n{done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            peers[peer] = found["samples_per_second"]
            details[peer] = _rounded(found)
    return Result("sae_fit", "samples/s", figures["samples_per_second"], peers, product_limit(), details)


def python_of(peer: str) -> Path:
    return ROOT / ".peers" / peer / "bin" / "python"


def install() -> None:
    """Make the peers' environments."""
    for peer, packages in PEERS.items():
        if not python_of(peer).exists():
            subprocess.run([sys.executable, "-m", "venv", str(python_of(peer).parents[1])], check=True)
        subprocess.run([str(python_of(peer)), "-m", "pip", "install", "-q", "torch", *packages], check=True)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in values.items()}


if __name__ == "__main__":
    if sys.argv[1:] == ["--install"]:
        install()
    else:
        main(measure, ("numpy", "numba"))
