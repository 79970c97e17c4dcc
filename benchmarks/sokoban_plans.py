"""Probes of cells fitted per second (3 x 3 cells, 16 channels, five classes, 40,000 cells), beside scikit-learn's
softmax regression by the same solver on the same patches, standardised; both losses are among the details.

With `RL_INTERP_SOKOBAN_RUN` naming a run of a DRC(2, 2) of 16 channels on 10 x 10 boards, the details say besides how
long `sokoban probe --episodes 3000` takes, and `sokoban think` for 1,000 levels and six numbers of thinking steps;
these write into the run's analyses/.
"""

import os
import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from benchmarks.measure import Result, main
from rl_interp.agents.load import load_agent
from rl_interp.analysis.probes.cells import CELLS, fit
from rl_interp.analysis.sokoban.probing import probe_plans
from rl_interp.analysis.sokoban.thinking import give_time

BOARDS, CHANNELS, SIDE, CLASSES, ROUNDS = 1000, 16, 10, 5, 3


def features() -> tuple[torch.Tensor, np.ndarray]:
    """Channels that go together, as hidden states do, and classes that a linear function of 3 x 3 cells draws."""
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(CHANNELS, CHANNELS, 1, 1, generator=generator)
    maps = F.conv2d(torch.randn(BOARDS, CHANNELS, SIDE, SIDE, generator=generator), mixture).tanh()
    logits = F.conv2d(maps, 0.4 * torch.randn(CLASSES, CHANNELS, 3, 3, generator=generator), padding=1)
    uniform = torch.rand(logits.shape, generator=generator)
    return maps, (logits - (-uniform.log()).log()).argmax(1).numpy()


def patches(maps: torch.Tensor, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chosen = np.random.default_rng(0).choice(classes.size, CELLS, replace=False)
    rows = F.unfold(maps, 3, padding=1).movedim(1, -1).flatten(0, 1)
    return rows[torch.from_numpy(chosen)].numpy(), classes.ravel()[chosen]


def peer(rows: np.ndarray, wanted: np.ndarray) -> float:
    """The loss of scikit-learn's fit."""
    scaled = StandardScaler().fit_transform(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=100, tol=1e-4).fit(scaled, wanted)
    return float(F.cross_entropy(torch.from_numpy(model.decision_function(scaled)), torch.from_numpy(wanted)))


def measure() -> Result:
    """Probes of cells per second."""
    maps, classes = features()
    rows, wanted = patches(maps, classes)
    took: dict[str, float] = {"ours": np.inf, "peer": np.inf}
    for _ in range(ROUNDS):
        start = time.perf_counter()
        probe = fit(maps, classes, CLASSES, 3)
        took["ours"] = min(took["ours"], time.perf_counter() - start)
        start = time.perf_counter()
        theirs = peer(rows, wanted)
        took["peer"] = min(took["peer"], time.perf_counter() - start)
    logits = torch.addmm(probe.bias, torch.from_numpy(rows), probe.weight.flatten(1).T)
    ours = float(F.cross_entropy(logits, torch.from_numpy(wanted)))
    details = {"loss": ours, "loss of scikit-learn": theirs, **commands()}
    return Result("sokoban_plans", "probes/s", 1 / took["ours"], {"scikit-learn": 1 / took["peer"]}, None, details)


def commands() -> dict[str, float]:
    run = os.environ.get("RL_INTERP_SOKOBAN_RUN")
    if run is None:
        return {}
    loaded, start = load_agent(run), time.perf_counter()
    probe_plans(loaded, 3000)
    probed = time.perf_counter()
    give_time(loaded, episodes=1000)
    return {"probing 3,000 episodes, s": probed - start, "thinking of 1,000 levels, s": time.perf_counter() - probed}


if __name__ == "__main__":
    main(measure, ("scikit-learn", "numpy"))
