"""Trainings on Crafter, as JSON beside this file, and their picture.

python docs/results/crafter/curves.py keep NAME RUN [evaluation.json]   # curve and evaluation of a run
python docs/results/crafter/curves.py draw
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from rl_interp.core.run import Run

HERE = Path(__file__).parent
BEFORE = sorted((HERE.parent / "study-cbet").glob("impala-crafter-base-seed*.json"))
WITHOUT = {
    "without-clip": "without the clipped surrogate", "without-epochs": "with one pass",
    "without-cells": "with the ResNet of whole pictures", "without-scale": "values not brought to scale",
}  # fmt: skip


def keep(name: str, run: str, evaluation: str = "") -> None:
    opened = Run.open(run)
    points = [(m["step"], round(m["episode_return"], 4)) for m in opened.metrics() if "episode_return" in m]
    steps, returns = zip(*points, strict=True)
    kept = {"command": opened.meta["command"], "steps": steps, "returns": returns}
    if evaluation:
        kept["evaluation"] = json.loads(Path(evaluation).read_text(encoding="utf-8"))
    (HERE / f"{name}.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")


def draw() -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", sharey=True)
    for path in BEFORE:
        _line(left, path, color="0.7", label="before" if path == BEFORE[0] else None)
    for seed in range(3):
        _line(left, HERE / f"seed{seed}.json", color=f"C{seed}", label=f"now, seed {seed}")
    _line(right, HERE / "seed0.json", color="black", label="all (seed 0)", linewidth=2)
    for i, (name, label) in enumerate(WITHOUT.items()):
        _line(right, HERE / f"{name}.json", color=f"C{i + 3}", label=label)
    right.set_xlim(0, 0.21)
    for axis in (left, right):
        axis.set_xlabel("decisions, millions")
        axis.legend(loc="lower right" if axis is left else "upper left", frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("return of training episodes")
    left.set_ylim(0, None)
    figure.savefig(HERE / "curves.png", dpi=110)


def _line(axis: plt.Axes, path: Path, **look: object) -> None:
    kept = json.loads(path.read_text(encoding="utf-8"))
    axis.plot(np.array(kept["steps"]) / 1e6, kept["returns"], **{"linewidth": 1.2} | look)


if __name__ == "__main__":
    {"keep": keep, "draw": draw}[sys.argv[1]](*sys.argv[2:])
