"""What is known of the rows that an autoencoder was fitted on: the ground truth of a state, or, where rows are the
positions of a layer, that of the cells which they are about."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.core.envs import concepts_sha256, make_labelled
from rl_interp.core.envs.labelled import Cells
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hook_point
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.receptive_fields import is_recurrent_map, receptive_fields
from rl_interp.core.replay import revisit

STATES = 300
"""States of either side of the split for whose positions cells are looked up."""


@dataclass(frozen=True)
class Labelled:
    """Rows of a store with C yes-or-no concepts, none of which all or no rows of a side have."""

    names: list[str]
    train: NDArray[np.int64]
    train_labels: NDArray[np.bool_]
    """`[N, C]`."""
    held_out: NDArray[np.int64]
    held_out_labels: NDArray[np.bool_]
    meanings: list[str]


def labelled(fitted: LoadedSAE, progress: Progress = SILENT) -> Labelled | None:
    """None where nothing is known. Labels of an earlier version are left out with a warning; of a store that has no
    others, no concept is left."""
    if fitted.store.positions > 1:
        found = _cells(fitted, progress)
    elif outdated := labels_outdated(fitted):
        progress.warn(outdated)
        return unlabelled(fitted)
    else:
        found = _states(fitted)
    if found is None:
        return None
    told = [
        all(0 < labels[:, i].mean() < 1 for labels in (found.train_labels, found.held_out_labels))
        for i in range(len(found.names))
    ]
    if not any(told):
        return None
    return Labelled(
        list(itertools.compress(found.names, told)), found.train, found.train_labels[:, told], found.held_out,
        found.held_out_labels[:, told], list(itertools.compress(found.meanings, told)),
    )  # fmt: skip


def unlabelled(fitted: LoadedSAE) -> Labelled:
    """All rows, without a concept."""
    none = [np.zeros((len(side), 0), bool) for side in (fitted.train_rows, fitted.held_out_rows)]
    return Labelled([], fitted.train_rows, none[0], fitted.held_out_rows, none[1], [])


def of_states(fitted: LoadedSAE) -> dict[str, str]:
    """The yes-or-no concepts of a state that the store's columns tell, and what they mean.

    Raises:
        UserError: they meant something else when the store was collected.
    """
    if outdated := labels_outdated(fitted):
        raise UserError(outdated)
    return _told(fitted)


def labels_outdated(fitted: LoadedSAE) -> str | None:
    """A sentence, where the store's labels were collected under other meanings than the environment's concepts have
    now; earlier versions did not record them."""
    now = concepts_sha256(make_labelled(fitted.env).concepts)
    if not _told(fitted) or fitted.store.manifest["provenance"].get("concepts_sha256") == now:
        return None
    return f"labels of {fitted.store.path} are of an earlier version and are left out; collect it again to use them."


def _told(fitted: LoadedSAE) -> dict[str, str]:
    concepts, columns = make_labelled(fitted.env).concepts, fitted.store.columns()
    return {name: each.meaning for name, each in concepts.items() if each.kind == "boolean" and name in columns}


def _states(fitted: LoadedSAE) -> Labelled | None:
    store, known = fitted.store, of_states(fitted)
    if not known:
        return None
    names, meanings = list(known), list(known.values())
    labels = np.stack([store.column(name).astype(bool) for name in names], 1)
    train, held_out = fitted.train_rows, fitted.held_out_rows
    return Labelled(names, train, labels[train], held_out, labels[held_out], meanings)


def _cells(fitted: LoadedSAE, progress: Progress) -> Labelled | None:
    """One concept a class of cells; a class that does not apply to a cell counts as no. Positions about no cell of the
    world are left out."""
    store, place = fitted.store, _place(fitted)
    if place is None:
        return None
    rows, columns = place
    sides, names = [], []
    for of_side in (fitted.train_rows, fitted.held_out_rows):
        samples = np.unique(of_side // store.positions)
        samples = samples[:: max(1, len(samples) // STATES)]
        kept, labels = [], []
        for sample, classes in _seen(fitted, samples, progress):
            names = [f"{truth}: {label}" for truth, (_, of_truth) in classes.items() for label in of_truth]
            known, found = _at(classes, rows, columns)
            kept.append(sample * store.positions + np.flatnonzero(known))
            labels.append(found[known])
        sides += [np.concatenate(kept), np.concatenate(labels)]
    return Labelled(names, *sides, meanings=["of the cell that a position is about"] * len(names))


def _place(fitted: LoadedSAE) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """The rows and columns of the world that the layer's positions are about; None where they are about none."""
    env, agent = fitted.agent.env, fitted.agent.agent
    point, shape = hook_point(agent, fitted.hook), env.observation_shape
    if env.cell_pixels is None or not point.axes.endswith("C H W"):
        return None
    if is_recurrent_map(point) and fitted.store.positions != shape[-2] * shape[-1]:
        return None
    blank = torch.zeros(1, *shape, dtype=torch.uint8, device=fitted.sae.W_dec.device)
    return receptive_fields(agent, fitted.hook, blank).cells(env)


def _seen(fitted: LoadedSAE, samples: NDArray[np.integer], progress: Progress) -> Iterator[tuple[int, Cells]]:
    """Each sample of the store with the ground truth of its cells."""
    with progress.bar("Looking up cells", len(samples), "states") as update:
        for done, state in enumerate(revisit(fitted.agent.env, fitted.store, samples)):
            yield state.sample, state.env.cells()
            update(done + 1)


def _at(
    classes: Cells, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which positions `[H · W]` are about a cell of some class, and the classes of each, `[H · W, C]`."""
    known, found = np.zeros((len(rows), len(columns)), bool), []
    for numbers, labels in classes.values():
        inside = [(at >= 0) & (at < size) for at, size in zip((rows, columns), numbers.shape, strict=True)]
        picked = numbers[np.ix_(np.where(inside[0], rows, 0), np.where(inside[1], columns, 0))]
        picked = np.where(inside[0][:, None] & inside[1], picked, -1)
        known |= picked >= 0
        found += [picked == i for i in range(len(labels))]
    return known.ravel(), np.stack(found, -1).reshape(known.size, -1)
