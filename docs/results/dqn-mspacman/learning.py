"""Trainings of the DQN on Ms. Pac-Man, as JSON beside this file, and their picture.

python docs/results/dqn-mspacman/learning.py keep NAME RUN
python docs/results/dqn-mspacman/learning.py draw
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from rl_interp.core.run import Run

HERE = Path(__file__).parent
WINDOW = 100_000
"""Decisions over which returns of training episodes are averaged."""
CURVES = {
    "before": ("before, seed 1", "0.3", 2),
    "rescaled-alone": ("before, with rescaled values", "C2", 1),
    "roots": ("before, with roots of rewards", "C4", 1),
    "priority-alone": ("before, with priorities", "C5", 1),
    "now-seed1": ("now, seed 1", "C0", 2),
    "now-seed2": ("now, seed 2; the step size falls from 1.67 on", "C9", 2),
    "now-seed3": ("now, seed 3", "C8", 2),
    "nearly-1": ("now, but Adam's ε of before and values in bf16", "C1", 1),
    "nearly-2": (None, "C1", 1),
    "nearly-3": (None, "C1", 1),
    "seven-steps": ("now, seven-step returns, seed 2", "C3", 1),
}
"""Label, colour and line width."""


def keep(name: str, run: str) -> None:
    opened = Run.open(run)
    points = [(m["step"], round(m["episode_return"], 1)) for m in opened.metrics() if "episode_return" in m]
    steps, returns = zip(*points, strict=True)
    kept = {"command": opened.meta["command"], "steps": steps, "returns": returns}
    (HERE / f"{name}.json").write_text(json.dumps(kept) + "\n", encoding="utf-8")


def draw() -> None:
    figure, axis = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for name, (label, color, width) in CURVES.items():
        kept = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
        steps, returns = np.array(kept["steps"]), np.array(kept["returns"])
        smooth = [returns[(steps > step - WINDOW) & (steps <= step)].mean() for step in steps]
        axis.plot(steps / 1e6, smooth, label=label, color=color, linewidth=width)
    axis.set(xlabel="decisions, millions", ylabel="return of training episodes", ylim=(0, None), xlim=(0, None))
    axis.legend(loc="lower right", frameon=False, fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "learning.png", dpi=110)


if __name__ == "__main__":
    {"keep": keep, "draw": draw}[sys.argv[1]](*sys.argv[2:])
