"""Draw `training_curve.png` from a run's metrics: `python docs/results/training_curve.py runs/dqn-mspacman`."""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from rl_interp.core.run import Run

WINDOW = 10


def main(path: str) -> None:
    metrics = Run.open(path).metrics()
    steps, returns = np.array([(m["step"], m["episode_return"]) for m in metrics if "episode_return" in m]).T
    evaluated = np.array([(m["step"], m["eval_return"]) for m in metrics if "eval_return" in m])
    smooth = np.convolve(returns, np.ones(WINDOW) / WINDOW, "valid")
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    axes.plot(steps / 1e6, returns, color="0.85", linewidth=1)
    axes.plot(steps[WINDOW - 1 :] / 1e6, smooth, color="tab:blue", label="training episodes (ε = 0.01 from 0.25M on)")
    axes.plot(evaluated[:, 0] / 1e6, evaluated[:, 1], "o", color="tab:orange", label="evaluation, ε = 0.001")
    axes.set(xlabel="decisions, millions", ylabel="return", ylim=(0, None), xlim=(0, None))
    axes.legend(loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
