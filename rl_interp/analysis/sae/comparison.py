"""What two dictionaries share: their features matched on the same observations."""

from typing import Any

import numpy as np

import rl_interp.sae as sae_package
from rl_interp.analysis.sae.evaluation import follow
from rl_interp.analysis.sae.report import build
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.errors import UserError
from rl_interp.core.progress import SILENT, Progress
from rl_interp.sae import ArrayActivations, Features, Matching

ALIKE = 0.7
"""Correlation from which a feature counts as found again in the other dictionary."""


def compare(first: LoadedSAE, second: LoadedSAE, top: int = 2, progress: Progress = SILENT) -> dict[str, Any]:
    """The comparison as plain values: both reports, and which features go together.

    Features are matched by the correlation of their activations on the first's held-out episodes, which the second's
    agent follows where it is a different one.

    Args:
        top: top frames per feature, each from a different episode.

    Raises:
        UserError: the agents do not see the same environment, the layers' positions differ, or one of the reports can't
            be made.
    """
    if first.agent.env != second.agent.env:
        raise UserError(
            f"{first.run.path} is about an agent in {first.agent.env.id} and {second.run.path} about one in "
            f"{second.agent.env.id}, or with other settings; features are matched on the same observations."
        )
    if first.store.positions != second.store.positions:
        raise UserError(
            f"{first.hook!r} has {first.store.positions} positions and {second.hook!r} {second.store.positions}; "
            "features are matched where both have the same."
        )
    sides = [build(each, top, clips=0, maps=0, progress=progress) for each in (first, second)]
    found = _matched(first, second, progress)
    return {
        "samples": len(first.held_out_rows),
        "episodes": len(np.unique(first.store.column("episode", first.held_out_rows))),
        "alike": ALIKE,
        "summary": [_summary(found, side) for side in (0, 1)],
        "pairs": [[f, g, round(float(found.correlation[f, g]), 4)] for f, g in found.pairs],
        "best": [[_nearest(found, side, f) for f in range(found.correlation.shape[side])] for side in (0, 1)],
        "sides": sides,
    }


def summary(data: dict[str, Any]) -> dict[str, Any]:
    """What a comparison comes to, without the features."""
    return {name: data[name] for name in ("samples", "episodes")} | {
        name: side for name, side in zip(("first", "second"), data["summary"], strict=True)
    }


def _matched(first: LoadedSAE, second: LoadedSAE, progress: Progress) -> Matching:
    rows = first.held_out_rows
    if first.agent.is_same_as(second.agent) and first.store.path.resolve() == second.store.path.resolve():
        known = np.isin(rows, second.rows).all()  # where the splits keep the same rows
        theirs = second.encoded(rows) if known else sae_package.encode_rows(second.sae, second.store, rows)
    else:
        episodes = np.unique(first.store.column("episode", rows))
        values = follow(second.agent.agent, second.hook, second.store.width, first, episodes, progress)
        followed = np.flatnonzero(np.isin(first.store.column("episode", np.arange(len(first.store))), episodes))
        theirs = sae_package.encode_rows(second.sae, ArrayActivations(values), np.searchsorted(followed, rows))
    return sae_package.match(Features(first.encoded(rows)), Features(theirs), first.store.positions)


def _summary(found: Matching, side: int) -> dict[str, float]:
    best, chance = found.best(side), found.best_by_chance(side)
    return {
        "living": len(best),
        "best_mean": float(best.mean()),
        "best_mean_by_chance": float(chance.mean()),
        "alike": float((best >= ALIKE).mean()),
        "alike_by_chance": float((chance >= ALIKE).mean()),
    }


def _nearest(found: Matching, side: int, feature: int) -> list[float]:
    """The other side's most correlated feature, and the correlation."""
    row = found.correlation[feature] if side == 0 else found.correlation[:, feature]
    return [int(row.argmax()), round(float(row.max()), 4)]
