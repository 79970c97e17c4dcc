"""Fitting dictionaries on an agent's collected activations, each into a run of its own."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import rl_interp.sae as sae_package
from rl_interp.agents.load import Loaded, new_run_path
from rl_interp.analysis.playing import store_path
from rl_interp.analysis.sae.evaluation import metrics_json, play_through
from rl_interp.analysis.sae.policy import metric_of
from rl_interp.analysis.sae.runs import (
    DIGESTS,
    config_of,
    dictionary_of,
    load_sae,
    open_pair,
    parent_of,
    replaced,
    split,
)
from rl_interp.core.config import differences, to_plain
from rl_interp.core.envs import make_vector
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.files import write_json
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.locks import writing
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import reading
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore
from rl_interp.sae import SAE, Diagnosis, Feed, SAEConfig, Trainer, fit_all

_SPLIT = ("held_out", "uncontrollable", "data_seed")
"""The fields of a configuration that `split` goes by."""
_OFF = 0.25
"""Share of k by which the number of active latents may be off without a word."""
SAVE_EVERY = 300.0
"""Seconds between checkpoints: what a fit that is killed loses at most."""


def fit_new(
    loaded: Loaded,
    hook: str,
    to: str | None,
    config: SAEConfig,
    name: str | None,
    device: str = "cpu",
    episodes: int = 0,
    start: str | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Fit a dictionary on an agent's collected activations and evaluate it on held-out episodes; the run holds both.

    Args:
        to: hook point that a transcoder predicts; None for an autoencoder.
        name: of the run, or a path; None for one made of the agent's, the hook and the sizes.
        episodes: whole episodes to play through it, and as many without, in the agent's environment.
        start: run of a dictionary to go on from; None to begin anew.

    Returns:
        The run's path, how fast it was fitted, and its figures.
    """
    require_held_out(config)
    if episodes:
        _require_environment(loaded)
    if to is None:
        store, target, what = ActivationStore(store_path(loaded.run, hook)), None, f"sae-{hook}"
    else:
        (store, target), what = open_pair(*(store_path(loaded.run, at) for at in (hook, to))), f"transcoder-{hook}-{to}"
    path = new_run_path(name or f"{loaded.run.path.name}-{what}-{config.latents}-k{config.k}-seed{config.seed}")
    diagnosis = _diagnosed(store, target, config, progress)
    samples, rate = fit_run(loaded, store, config, path, target, device, progress, start)
    fitted = load_sae(path, device, [loaded, store, *([target] if target else [])], progress)
    metrics = metrics_json(fitted, in_memory=False) | {"diagnosis": asdict(diagnosis), "made_from": fitted.made_from}
    if episodes:
        progress.note(
            f"playing {episodes} episodes through the dictionary and the same without, since a small FVU alone "
            "promises little; --episodes 0 leaves this out."
        )
        metrics |= play_through(fitted, episodes, progress)
    write_json(path / "analyses" / "metrics.json", metrics)
    note_activity(store.hook, config, metrics["l0"], progress)
    if metrics.get("policy_kl", 0.0) is None:
        progress.note(
            f"{store.hook}: spliced in, it leaves the agent no policy in some states, as where errors add up in a "
            "memory; fit it on more samples, or with more latents."
        )
    return {"run": str(path), "samples": samples, "samples_per_second": rate, **metrics}


def note_activity(what: str, config: SAEConfig, l0: float, progress: Progress) -> None:
    """Say where a dictionary has far more or fewer than k active latents; of Top-K, which has at most k, nothing."""
    if config.variant != "topk" and abs(l0 / config.k - 1) > _OFF:
        progress.note(
            f"{what}: {l0:.1f} latents are active in a sample on average, and k is {config.k}; fit for more --epochs, "
            "on more samples or with another --k before you compare it with others."
        )


def _require_environment(loaded: Loaded) -> None:
    """Raise a `UserError` before a fit whose episodes could not be played."""
    try:
        make_vector(loaded.env, 1).close()
    except UserError as error:
        raise UserError(f"{error} Episodes are to be played after the fit; --episodes 0 fits without.") from error


def fit_run(
    loaded: Loaded,
    store: ActivationStore,
    config: SAEConfig,
    path: Path,
    target: ActivationStore | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
    start: str | None = None,
) -> tuple[int, float]:
    """`fit_runs`, for one."""
    return fit_runs(loaded, store, {path: config}, target, device, progress, start)


def fit_runs(
    loaded: Loaded,
    store: ActivationStore,
    configs: Mapping[Path, SAEConfig],
    target: ActivationStore | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
    start: str | None = None,
) -> tuple[int, float]:
    """Fit several, each into the run at its path, from its newest checkpoint if it has one; with a `target`, which
    `open_pair` has opened, transcoders.

    Those that are equally far, as all are at first, go side by side in one pass over the store.

    Args:
        start: run of a dictionary that all go on from, which may be of other activations; None to begin anew.

    Returns:
        The samples that all together have seen since their fits began, and how many a second in this call, without
        saving (0 if nothing was left to do).

    Raises:
        UserError: a store is of a different hook point, the configurations read it or split it differently, or there is
            no such device.
        RunError: a path holds a run of a different kind, parent or configuration, which is named; another command is
            writing it; or the disk is full.
        Interrupted: after Ctrl-C or SIGTERM, when every fit has written its checkpoint.
    """
    for each in (store, target or store):
        if each.hook not in loaded.agent.hook_points:
            raise UserError(
                f"{each.path} holds {each.hook!r}, which is no hook point of the agent in {loaded.run.path}."
            )
    first = next(iter(configs.values()))
    for config in configs.values():
        if other := [name for name in _SPLIT if getattr(config, name) != getattr(first, name)]:
            raise UserError(f"fits that share their data differ in {', '.join(other)}: give all the same.")
    rows, _ = split(store, first)
    parent = parent_of(loaded, store, target)
    if start is not None:
        given = Run.open(start)
        parent |= {"start": str(given.path), "start_sha256": given.weights_sha256(given.newest_step())}
    metadata = {"model_name": store.manifest["provenance"].get("run", ""), "hook_name": store.hook}
    if target is not None:
        metadata |= {"hook_name_out": target.hook}
    with ExitStack() as locks:
        for path in configs:
            locks.enter_context(writing(path))
        begin = None if start is None else dictionary_of(start)
        configs, metric = _weighed(loaded, target or store, configs, progress)
        return _fit_groups(store, configs, rows, target, device, parent, metadata, begin, metric, progress)


def _weighed(
    loaded: Loaded, layer: ActivationStore, configs: Mapping[Path, SAEConfig], progress: Progress
) -> tuple[dict[Path, SAEConfig], Tensor | None]:
    """The configurations with their policy's weight, those of fits that are gone on with as they were begun, and the
    metric that it weighs; None where none is asked for, or by default where there is none."""
    found = {}
    for path, config in configs.items():
        if config.policy_weight is None and Run(path).checkpoint_steps():
            config = replace(config, policy_weight=config_of(Run.open(path)).policy_weight or 0.0)
        found[path] = config
    by_default = any(config.policy_weight is None for config in found.values())
    metric = None
    if by_default or any(config.policy_weight for config in found.values()):
        seed = next(iter(found.values())).data_seed
        try:
            metric = metric_of(loaded, layer.hook, layer.width, seed, progress)
            if by_default and not metric.any():
                raise UserError("the agent's decisions do not depend on it.")
        except RunError:
            raise
        except UserError as error:
            if not by_default:
                raise
            metric = None
            progress.note(f"{layer.hook} is fitted for its activations alone, without a policy_weight: {error}")
    weight = 1.0 if metric is not None else 0.0
    return {
        path: config if config.policy_weight is not None else replace(config, policy_weight=weight)
        for path, config in found.items()
    }, metric


def newest_step(path: Path, config: SAEConfig, parent: Mapping[str, Any]) -> int:
    """Of the checkpoints of the run at `path`; 0 where there is none.

    Raises:
        RunError: it is a run of a different kind, parent or configuration, which says where they differ.
    """
    if not Run(path).checkpoint_steps():
        return 0
    run = Run.open(path)
    theirs, parent = _absolute(run.meta["parent"] or {}), _absolute(parent)
    known = {name: value for name, value in parent.items() if name in theirs or name not in DIGESTS}
    if others := replaced(theirs, parent):
        raise RunError(
            f"{path} already holds a fit to what {others[0]} was before it was replaced; give another name with --name."
        )
    if run.meta["kind"] != "sae":
        raise RunError(f"{path} already holds a run of kind {run.meta['kind']!r}; give another name with --name.")
    kept = config_of(run)
    if config.policy_weight is None:  # whatever the fit was begun with
        config = replace(config, policy_weight=kept.policy_weight)
    recorded, given = ({"parent": of} | to_plain(settings) for of, settings in ((theirs, kept), (known, config)))
    if other := differences(recorded, given):
        raise RunError(f"{path} already holds a fit of which {other}; give that, or another name with --name.")
    return run.checkpoint_steps()[-1]


def require_held_out(config: SAEConfig) -> None:
    """Raise a `UserError` where no episodes would be left to measure a dictionary on."""
    if not config.held_out:
        raise UserError(
            "held_out=0 given; a dictionary is evaluated on episodes that it was not fitted to: give a share above 0."
        )


def _diagnosed(
    store: ActivationStore, target: ActivationStore | None, config: SAEConfig, progress: Progress
) -> Diagnosis:
    """Of the store that is read; what will be difficult with the data of either is said."""
    rows = np.sort(np.concatenate(split(store, config)))
    if len(rows) < len(store):
        left_out = f"{1 - len(rows) / len(store):.1%} of the samples are left out, as actions do nothing there"
        progress.note(f"{store.hook}: {left_out}; --uncontrollable keeps them.")
    elif not config.uncontrollable and "controllable" not in store.columns():
        progress.note(f"{store.hook}: the store does not tell in which samples actions do nothing; all are used.")
    diagnoses = {each.hook: sae_package.diagnose(each, rows) for each in (store, target) if each is not None}
    for hook, found in diagnoses.items():
        for sentence in (*found.warnings(config), *found.notes()):
            progress.note(f"{hook}: {sentence}")
    return diagnoses[store.hook]


def _fit_groups(
    store: ActivationStore,
    configs: Mapping[Path, SAEConfig],
    rows: np.ndarray,
    target: ActivationStore | None,
    device: str,
    parent: dict[str, Any],
    metadata: dict[str, Any],
    begin: SAE | None,
    policy: Tensor | None,
    progress: Progress,
) -> tuple[int, float]:
    """Those that are equally far go together."""
    first = next(iter(configs.values()))
    steps = {path: newest_step(path, config, parent) for path, config in configs.items()}
    samples, now, seconds = 0, 0, 0.0
    for step in sorted(set(steps.values())):
        paths = [path for path in configs if steps[path] == step]
        feed = Feed(store, first, rows, target, device, policy)
        trainers = [Trainer(feed, configs[path], begin) for path in paths]
        runs = [_open_run(path, configs[path], parent, step) for path in paths]
        if step:
            states = [run.load_state(step) for run in runs]
            with reading(runs[0].path / "checkpoints", "restore it, or use another checkpoint", "does not fit the fit"):
                feed.load_state_dict(states[0]["feed"])
                together = all(feed.has(state["feed"]) for state in states)
            if not together:
                raise RunError(
                    f"fits in {paths[0].parent} were begun on machines whose whitening differs, and can't go on "
                    "together; go on with each where it was begun, or remove all but one."
                )
            for path, state, trainer in zip(paths, states, trainers, strict=True):
                with reading(path / "checkpoints", "restore it, or use another checkpoint", "does not fit the fit"):
                    trainer.load_state_dict(state)
        before = sum(trainer.samples for trainer in trainers)
        seconds += _fit_side_by_side(runs, trainers, metadata, progress)
        after = sum(trainer.samples for trainer in trainers)
        samples, now = samples + after, now + after - before
    return samples, now / seconds if seconds else 0.0


def _fit_side_by_side(
    runs: Sequence[Run], trainers: Sequence[Trainer], metadata: dict[str, Any], progress: Progress
) -> float:
    """Fit to the end, with a checkpoint now and then; returns the seconds that it took without saving."""
    title = f"Fitting {trainers[0].config.latents} latents" if len(runs) == 1 else f"Fitting {len(runs)} dictionaries"
    total, seconds, each = trainers[0].total_updates, 0.0, trainers[0].config.batch_size
    with graceful_stop() as stop, progress.bar(title, total * each, "samples") as update:

        def report(updates: int, total: int, metrics: list[dict[str, float]]) -> None:
            for run, figures in zip(runs, metrics, strict=True):
                run.log(updates, figures)
            worst = max(metrics, key=lambda figures: figures["whitened_fvu"])
            figures = f"whitened FVU {worst['whitened_fvu']:.3f}  dead {worst['dead']:.0f}"
            update(updates * each, f"batch {updates:,} of {total:,}  {figures}")

        while trainers[0].updates < total and not stop:
            started = time.perf_counter()
            due = started + SAVE_EVERY
            fit_all(trainers, report, should_stop=lambda due=due: bool(stop) or time.perf_counter() > due)
            seconds += time.perf_counter() - started
            for run, trainer in zip(runs, trainers, strict=True):
                _save(run, trainer, metadata)
    for run in runs:
        run.close()
    if trainers[0].updates < total:
        raise Interrupted(
            f"stopped at update {trainers[0].updates} of {total}, saved in {runs[0].path}; run the same command again "
            "to go on."
        )
    return seconds


def _absolute(parent: Mapping[str, Any]) -> dict[str, Any]:
    """With the same path for the same place, from wherever it was given."""
    return {name: str(Path(v).resolve()) if name in DIGESTS.values() else v for name, v in parent.items()}


def _open_run(path: Path, config: SAEConfig, parent: dict[str, Any], step: int) -> Run:
    """The run at `path` as it was at `step`: a fit that is killed has logged more than it saved."""
    if not step:
        return Run.create(path, "sae", config, config.seed, parent)
    run = Run.open(path)
    run.rewind(step)
    return run


def _save(run: Run, trainer: Trainer, metadata: dict[str, Any]) -> None:
    """The export first: where the checkpoint is the last, it is complete."""
    sae = trainer.sae()
    sae_package.save(sae, run.path / "sae_lens", metadata)
    run.save_checkpoint(trainer.updates, sae.state_dict(), trainer.state_dict(), keep=1)
