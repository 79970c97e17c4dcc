"""How well Top-K autoencoders are fitted with what a library chooses by itself: the share of the variance of held-out
samples that is unexplained, and the share of the planted directions that some latent's direction has found (cosine
above 0.9), on a grid of widths, numbers of latents and kinds of data.

    python -m benchmarks.sae_fit --install                       # the peers' environments, under .peers/
    python -m benchmarks.sae_quality                             # the whole grid: hours on two cores
    python -m benchmarks.sae_quality --widths 64 256 --times 4 --kinds plain --peers sparsify --seed 1

Every cell has 20,000 samples of as many planted directions as latents, 12 passes, batches of 512. Ours is fitted with
its defaults; each peer with the best, by the variance unexplained on the held-out samples, of three multiples of the
step size that it has by default: 1, 3 and 10, of sparsify's, which is larger, 1/3, 1 and 3. Measured cells are added to
`benchmarks/results/sae_quality.json`; of a cell that is there, what was not measured again stays.
"""

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from benchmarks.sae_fit import ROOT, python_of
from rl_interp.core.files import write_json
from rl_interp.core.tables import markdown
from rl_interp.sae import ArrayActivations, SAEConfig, evaluate, fit, largest_cosines

Kind = Literal["plain", "correlated", "heavy-tailed"]
SAMPLES, HELD_OUT, EPOCHS, BATCH = 20_000, 4_000, 12, 512
FACTORS = {"saelens": (1, 3, 10), "dictionary_learning": (1, 3, 10), "sparsify": (1 / 3, 1, 3)}
OUT = ROOT / "benchmarks" / "results" / "sae_quality.json"


@dataclass(frozen=True)
class Cell:
    width: int
    times: int
    """Latents for each input."""
    kind: Kind

    @property
    def latents(self) -> int:
        return self.width * self.times

    @property
    def k(self) -> int:
        """Directions active in a sample, and latents: few enough that they can be told apart in so many dimensions."""
        return {64: 4, 256: 8, 1024: 16}.get(self.width, max(2, self.width // 64))


def planted(cell: Cell, seed: int = 0) -> dict[str, np.ndarray]:
    """Sparse sums of random directions with a little noise.

    Plain: all directions are as likely, and strengths are from 0.5 to 1.5. Correlated: directions are active in groups
    of eight, two at a time on average. Heavy-tailed: how often a direction is active goes as one over its rank to the
    power 0.7, and strengths are lognormal.
    """
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(cell.latents, cell.width)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    share = np.full(cell.latents, cell.k / cell.latents)
    if cell.kind == "heavy-tailed":
        share = np.arange(1, cell.latents + 1) ** -0.7
        for _ in range(20):  # until none is likelier than a half
            share = np.minimum(0.5, share * cell.k / share.sum())
    x = np.empty((SAMPLES + HELD_OUT, cell.width), np.float32)
    for start in range(0, len(x), 4096):
        size = (len(x[start : start + 4096]), cell.latents)
        if cell.kind == "correlated":
            groups = rng.random((size[0], -(-cell.latents // 8))) < 4 * share[0]
            active = np.repeat(groups, 8, axis=1)[:, : cell.latents] & (rng.random(size) < 0.25)
        else:
            active = rng.random(size) < share
        lognormal = cell.kind == "heavy-tailed"
        strength = rng.lognormal(-0.3, 0.8, size) if lognormal else rng.uniform(0.5, 1.5, size)
        x[start : start + 4096] = (strength * active).astype(np.float32) @ directions
    x += 0.1 * x.std() * rng.normal(size=x.shape).astype(np.float32)
    return {"x": x[:SAMPLES], "held_out": x[SAMPLES:], "planted": directions}


def ours(cell: Cell, data: dict[str, np.ndarray], **settings: Any) -> dict[str, Any]:
    """The figures of a fit with our defaults, or with others."""
    config = replace(SAEConfig(latents=cell.latents, k=cell.k, epochs=EPOCHS, batch_size=BATCH), **settings)
    start = time.perf_counter()
    sae = fit(ArrayActivations(data["x"]), config)
    seconds = time.perf_counter() - start
    held_out = evaluate(sae, ArrayActivations(data["held_out"]), np.arange(HELD_OUT))
    return {
        "fvu": held_out.fvu,
        "found": (largest_cosines(torch.from_numpy(data["planted"]), sae.W_dec) > 0.9).float().mean().item(),
        "dead": evaluate(sae, ArrayActivations(data["x"]), np.arange(SAMPLES)).dead_fraction,
        "seconds": seconds,
    }


def peer(name: str, cell: Cell, data: dict[str, np.ndarray]) -> dict[str, Any]:
    """The figures of the peer's best fit."""
    updates = EPOCHS * -(-SAMPLES // BATCH)
    sizes = {"d_in": cell.width, "latents": cell.latents, "k": cell.k, "batch": BATCH, "updates": updates}
    sizes |= {"warmup": round(0.02 * updates), "factors": FACTORS[name]}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "data.npz", **data)  # pyright: ignore[reportArgumentType]
        command = [str(python_of(name)), "-m", f"benchmarks.sae_peers.{name}", f"{folder}/data.npz", json.dumps(sizes)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    fits = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return min(fits, key=lambda figures: figures["fvu"])


def measure(cell: Cell, peers: list[str], seed: int) -> dict[str, Any]:
    data = planted(cell, seed)
    row: dict[str, Any] = {"width": cell.width, "times": cell.times, "kind": cell.kind, "seed": seed, "k": cell.k}
    row["ours"] = ours(cell, data)
    for name in peers:
        if python_of(name).exists():
            row[name] = peer(name, cell, data)
        else:
            print(
                f"{name} is left out: it has no {python_of(name)}; `python -m benchmarks.sae_fit --install` makes it."
            )
    return row


def added(rows: list[dict[str, Any]], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows in order, with one more. Of a cell that was measured before, peers that were not measured again stay."""

    def cell(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["width"], row["times"], row["kind"], row["seed"]

    before = {cell(each): each for each in rows}
    return [each for _, each in sorted((before | {cell(row): before.get(cell(row), {}) | row}).items())]


def table(rows: list[dict[str, Any]]) -> str:
    """FVU and share found, in Markdown."""
    names = ["ours", *FACTORS]
    cells = []
    for row in rows:
        figures = (f"{row[name]['fvu']:.3f}, {row[name]['found']:.0%}" if name in row else "" for name in names)
        latents = row["width"] * row["times"]
        cells.append([row["width"], latents, row["k"], row["kind"], *figures])
    return markdown(["width", "latents", "k", "data", *names], cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="How well Top-K autoencoders are fitted by default, beside others.")
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--times", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--kinds", nargs="+", default=list(get_args(Kind)), choices=get_args(Kind))
    parser.add_argument("--peers", nargs="*", default=list(FACTORS), choices=list(FACTORS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(2)
    rows = json.loads(OUT.read_text()) if OUT.exists() else []
    for cell in (Cell(width, times, kind) for width in given.widths for times in given.times for kind in given.kinds):
        row = measure(cell, given.peers, given.seed)
        rows = added(rows, row)
        write_json(OUT, rows)
        print(f"{cell}: " + ", ".join(f"{name} {row[name]['fvu']:.4f}" for name in ("ours", *FACTORS) if name in row))
    print(table(rows), end="")


if __name__ == "__main__":
    main()
