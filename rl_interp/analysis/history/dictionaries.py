"""Dictionaries of a layer through training: one of each checkpoint, and one of all together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.analysis.history.checkpoints import Checkpoint, Settings
from rl_interp.core.errors import UserError
from rl_interp.core.progress import Progress
from rl_interp.sae import ArrayActivations, Crosscoder, SAEConfig, fit_crosscoder, side_by_side, split_by_episode
from rl_interp.sae.encoding import Encoding, encode_rows
from rl_interp.sae.evaluation.features import Features
from rl_interp.sae.evaluation.matching import match
from rl_interp.sae.evaluation.metrics import evaluate
from rl_interp.sae.training.trainer import fit
from rl_interp.sae.training.whiten import check_width

ALIKE = 0.7
"""Correlation from which on two features count as the same."""


def check_dictionaries(width: int, settings: Settings) -> None:
    """Raise a `UserError` where a layer of so many activations is too wide for dictionaries of single checkpoints or of
    all, or the samples of the episodes that are fitted are too few for them."""
    latents = max(settings.latents, settings.crosscoder)
    if not latents:
        return
    check_width(width)
    fitted = round((1 - SAEConfig.held_out) * settings.samples)
    if fitted < latents:
        raise UserError(
            f"about {fitted} of {settings.samples} samples would be fitted, fewer than {latents} latents; give more "
            "--samples, or fewer latents."
        )


def crosscode(
    checkpoints: Sequence[Checkpoint], episodes: NDArray[np.int64], settings: Settings, progress: Progress
) -> dict[str, Any] | None:
    """One dictionary of all checkpoints: in which of them its features are, and from which on. The control is one of
    the same checkpoints out of step with each other, in which no feature can be shared. None where there can be none,
    of which a warning says why."""
    try:
        return _crosscode(checkpoints, episodes, settings, progress)
    except UserError as error:  # what was measured before is worth writing
        progress.warn(f"no crosscoder: {error}")
        return None


def _crosscode(
    checkpoints: Sequence[Checkpoint], episodes: NDArray[np.int64], settings: Settings, progress: Progress
) -> dict[str, Any]:
    varied = [each for each in checkpoints if np.ptp(each.flat, 0).any()]
    if len(varied) < 2:
        raise UserError("the layer is silent in all checkpoints but one.")
    config = SAEConfig(latents=settings.crosscoder, k=settings.k, epochs=settings.epochs, seed=settings.seed)
    fitted, held_out = split_by_episode(episodes, config.held_out, settings.seed)
    turns = len(episodes) // len(varied)
    with progress.bar("Fitting a crosscoder", 2, "fits") as update:
        sources = [each.flat for each in varied]
        coder = fit_crosscoder(sources, config, fitted)
        update(1)
        with _out_of_step(sources, turns):
            apart = fit_crosscoder(sources, config, fitted)
            living_apart = _encoded(apart, sources, held_out).density() > 0
        update(2)
    encoding = _encoded(coder, sources, held_out)
    living = encoding.density() > 0
    if not living.any():
        raise UserError("none of its latents fires in the held-out episodes; give more --samples.")
    parts = coder.split(coder.sae.decode_sparse(*encoding.padded()).detach())
    present = coder.shares[:, living] >= 0.5 * coder.shares[:, living].max(0)
    born = present.argmax(0)
    for number, (each, part) in enumerate(zip(varied, parts, strict=True)):
        truth = each.flat[held_out]
        error = np.square(truth - part.numpy()).sum(dtype=np.float64)
        each.figures["crosscoder"] = {
            "fvu": float(error / np.square(truth - truth.mean(0)).sum(dtype=np.float64)),
            "present": float(present[number].mean()),
            "born": float((born == number).mean()),
            "stay": float(present[-1, born == number].mean()) if (born == number).any() else None,
        }
    return {
        "latents": settings.crosscoder, "living": int(living.sum()), "l0": len(encoding.latents) / len(encoding),
        "spread": float(np.median(coder.spread()[living])),
        "spread_by_chance": float(np.median(apart.spread()[living_apart])) if living_apart.any() else None,
    }  # fmt: skip


@contextmanager
def _out_of_step(sources: Sequence[NDArray[np.float32]], turns: int) -> Iterator[None]:
    """Each source moved by `turns` samples against the one before, in place, as all together are large."""
    for n, each in enumerate(sources):
        each[:] = np.roll(each, n * turns, 0)
    try:
        yield
    finally:
        for n, each in enumerate(sources):
            each[:] = np.roll(each, -n * turns, 0)


def _encoded(coder: Crosscoder, sources: Sequence[NDArray[np.float32]], rows: NDArray[np.int64]) -> Encoding:
    together = side_by_side([each[rows] for each in sources])
    return encode_rows(coder.sae, together, np.arange(len(together)))


def fit_dictionaries(
    checkpoints: Sequence[Checkpoint], episodes: NDArray[np.int64], settings: Settings, progress: Progress
) -> None:
    """A dictionary of each, its figures on held-out episodes, and how many of its features are found again: in the
    checkpoint before, and by another seed on the same activations, without which the first says little."""
    config = SAEConfig(latents=settings.latents, k=settings.k, epochs=settings.epochs, seed=settings.seed)
    reseeded = replace(config, seed=config.seed + 1)
    fitted, held_out = split_by_episode(episodes, config.held_out, settings.seed)
    before: Features | None = None  # those of the checkpoint before
    with progress.bar("Fitting dictionaries", len(checkpoints), "checkpoints") as update:
        for number, each in enumerate(checkpoints):
            try:
                features, figures = _dictionary(each, config, fitted, held_out)
                again, _ = _dictionary(each, reseeded, fitted, held_out)
            except UserError as error:  # a layer that is silent, as before any learning, has no variance to explain
                progress.warn(f"no dictionary of step {each.step}: {error}")
                before = None
                continue
            figures["found_by_seed"] = _found_again(features, again)
            figures["found_before"] = _found_again(features, before) if before is not None else None
            each.figures["dictionary"], before = figures, features
            update(number + 1)


def _dictionary(
    checkpoint: Checkpoint, config: SAEConfig, fitted: NDArray[np.integer], held_out: NDArray[np.integer]
) -> tuple[Features, dict[str, Any]]:
    rows = ArrayActivations(checkpoint.flat)
    sae = fit(rows, config, fitted)
    encoding = encode_rows(sae, rows, held_out)
    metrics = evaluate(sae, rows, held_out, encoding=encoding)
    return Features(encoding), {"fvu": metrics.fvu, "dead_fraction": metrics.dead_fraction}


def _found_again(features: Features, others: Features) -> dict[str, float]:
    """Share of the living features whose activations correlate by at least 0.7 with one of the others, and what that
    share is by chance."""
    matching = match(features, others)
    best, by_chance = (float((each >= ALIKE).mean()) for each in (matching.best(0), matching.best_by_chance(0)))
    return {"value": best, "by_chance": by_chance}
