"""A dictionary's run: fitting it, and opening it with its agent."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import rl_interp.sae as sae_package
from rl_interp.agents.load import Loaded, load_agent
from rl_interp.core.config import differences, from_plain, to_plain
from rl_interp.core.device import pick_device
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.interventions import Intervention
from rl_interp.core.locks import writing
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import reading, require
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore
from rl_interp.sae import SAE, Encoding, Feed, SAEConfig, Trainer, fit_all

_DIGESTS = {"weights_sha256": "run", "store_sha256": "store", "target_sha256": "target"}
"""In a dictionary's parent: what tells whether it is as it was, and where it lies."""
_SPLIT = ("held_out", "uncontrollable", "data_seed")
"""The fields of a configuration that `split` goes by."""
SAVE_EVERY = 300.0
"""Seconds between checkpoints: what a fit that is killed loses at most."""


@dataclass(frozen=True)
class LoadedSAE:
    """A dictionary with the agent, the activations and the split that it was fitted on."""

    run: Run
    step: int
    """Of its checkpoint."""
    config: SAEConfig
    sae: SAE
    agent: Loaded
    hook: str
    """That it reads."""
    store: ActivationStore
    """What it reads."""
    target: ActivationStore
    """What it predicts, row by row; an autoencoder's is `store`."""
    train_rows: np.ndarray
    held_out_rows: np.ndarray

    @cached_property
    def made_from(self) -> dict[str, str]:
        """sha256 of all that a result of this dictionary is made from."""
        digests = {
            "dictionary_sha256": self.run.weights_sha256(self.step),
            "weights_sha256": self.agent.weights_sha256,
            "store_sha256": self.store.sha256,
        }
        return digests | ({"target_sha256": self.target.sha256} if self.target is not self.store else {})

    @cached_property
    def rows(self) -> np.ndarray:
        """Of both sides, rising."""
        return np.sort(np.concatenate([self.train_rows, self.held_out_rows]))

    @cached_property
    def encoding(self) -> Encoding:
        """Of `rows`, in memory: made when it is first asked for, and shared by all that is computed from it."""
        return sae_package.encode_rows(self.sae, self.store, self.rows)

    def encoded(self, rows: np.ndarray) -> Encoding:
        """The part of `encoding` that is of these rows, which are of either side."""
        return self.encoding.take(np.searchsorted(self.rows, rows))

    def splice(self) -> Intervention:
        """The intervention that puts what it predicts in the place of what it was to predict."""
        source = self.hook if self.sae.transcodes else None
        return sae_package.splice(self.sae, self.target.hook, self.target.width, source)


def open_pair(source: Path, target: Path) -> tuple[ActivationStore, ActivationStore]:
    """The stores of a transcoder's two layers. Where both have the same positions, a row is a position; where the
    target has none, a whole sample of the source.

    Raises:
        UserError: they are one, their samples are not of the same steps, or their positions differ.
    """
    first, second = ActivationStore(source), ActivationStore(target)
    if first.hook == second.hook:
        raise UserError(f"{first.hook!r} given to be predicted from itself; leave out --to for an autoencoder.")
    if not _same_steps(first, second):
        raise UserError(
            f"{first.path} and {second.path} are not of the same steps, as a transcoder needs them; collect both "
            "from one checkpoint, with the same --samples, --seed and --epsilon."
        )
    if first.positions != second.positions and second.positions > 1:
        raise UserError(
            f"{second.hook!r} has {second.positions} positions and {first.hook!r} {first.positions}; a position is "
            "predicted from the same position: choose a source that has them, or a target without."
        )
    return ActivationStore(source, whole=True) if second.positions == 1 else first, second


def _same_steps(first: ActivationStore, second: ActivationStore) -> bool:
    """Which episodes, played by which checkpoint and how: an episode follows from its seed and its actions."""
    if first.samples != second.samples:
        return False
    if first.manifest["provenance"].get("step") != second.manifest["provenance"].get("step"):
        return False
    columns = {"episode", "episode_seed", "step", "action"}.intersection(first.columns(), second.columns())
    return all(np.array_equal(first.column(name), second.column(name)) for name in columns)


def load_autoencoder(
    path: Path | str,
    device: str = "cpu",
    opened: Iterable[Loaded | ActivationStore] = (),
    progress: Progress = SILENT,
) -> LoadedSAE:
    """`load_sae`, for what can be done with autoencoders alone.

    Raises:
        UserError: the run is a transcoder's.
    """
    fitted = load_sae(path, device, opened, progress)
    if fitted.sae.transcodes:
        raise UserError(
            f"{fitted.run.path} is a transcoder, from {fitted.hook!r} to {fitted.target.hook!r}; this takes an "
            "autoencoder: fit one without --to."
        )
    return fitted


def load_sae(
    path: Path | str,
    device: str = "cpu",
    opened: Iterable[Loaded | ActivationStore] = (),
    progress: Progress = SILENT,
) -> LoadedSAE:
    """Open a dictionary's run with its agent, both on a device (auto, cpu or cuda), and activations. Where agent or
    activations are not those that it was fitted to, a warning says so.

    Args:
        opened: agents and stores that are open already: those that the dictionary was fitted to are neither read nor
            checked again.
    """
    run = Run.open(path)
    if run.meta["kind"] != "sae":
        raise RunError(f"{run.path} is a run of kind {run.meta['kind']!r}; give a run that `rl-interp sae fit` made.")
    config = _config(run)
    parent = run.meta.get("parent") or {}
    transcodes = "target" in parent
    wanted = {"run": str, "step": int, "store": str, "hook": str} | ({"target": str} if transcodes else {})
    require(parent, f"the parent in {run.path}/meta.json", **wanted)
    try:
        agent = _open_agent(parent, device, opened) or load_agent(parent["run"], parent["step"], device)
        names = [name for name in ("store", "target") if name in parent]
        stores = [there for name in names if (there := _open_store(parent[name], opened)) is not None]
        if len(stores) == len(names):
            store, target = stores[0], stores[-1]
        elif transcodes:
            store, target = open_pair(Path(parent["store"]), Path(parent["target"]))
        else:
            store = target = ActivationStore(parent["store"])
    except UserError as error:
        raise RunError(f"what {run.path} was made from can't be read: {error}") from error
    for what in _replaced(parent, parent_of(agent, store, target if transcodes else None)):
        progress.warn(
            f"{what} is not what {run.path} was fitted to: it was replaced since; figures of the two together mean "
            "nothing."
        )
    step = run.newest_step()
    sae = sae_package.rebuild(run.weights(step, infinite=("threshold",)), config.k, transcodes).to(pick_device(device))
    if sae.d_in != store.width or sae.d_out != target.width:
        raise RunError(
            f"{run.path} is of layers {sae.d_in} and {sae.d_out} wide, and {store.path} has {store.width}, "
            f"{target.path} {target.width}; collect the activations that it was fitted to again."
        )
    return LoadedSAE(run, step, config, sae, agent, parent["hook"], store, target, *split(store, config))


def _open_agent(parent: Mapping[str, Any], device: str, opened: Iterable[Loaded | ActivationStore]) -> Loaded | None:
    for each in opened:
        if isinstance(each, Loaded) and each.source["step"] == parent["step"] and _same(each.run.path, parent["run"]):
            return each if each.agent.device == pick_device(device) else None
    return None


def _open_store(path: str, opened: Iterable[Loaded | ActivationStore]) -> ActivationStore | None:
    return next((each for each in opened if isinstance(each, ActivationStore) and _same(each.path, path)), None)


def _same(path: Path, other: str) -> bool:
    return path.resolve() == Path(other).resolve()


def split(store: ActivationStore, config: SAEConfig) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a store to fit on, and those to evaluate on, of different episodes. Steps in which no action makes a
    difference are left out, unless the configuration keeps them or the store does not tell."""
    sides = sae_package.split_by_episode(
        store.column("episode", np.arange(len(store))), config.held_out, config.data_seed
    )
    if config.uncontrollable or "controllable" not in store.columns():
        return sides
    train, held_out = (side[store.column("controllable", side) > 0] for side in sides)
    return train, held_out


def _config(run: Run) -> SAEConfig:
    """Runs from before there was a choice kept every row."""
    return from_plain(SAEConfig, {"uncontrollable": True, **run.config}, run.path / "config.yaml")


def require_held_out(config: SAEConfig) -> None:
    """Raise a `UserError` where no episodes would be left to measure a dictionary on."""
    if not config.held_out:
        raise UserError(
            "held_out=0 given; a dictionary is evaluated on episodes that it was not fitted to: give a share above 0."
        )


def fit_run(
    loaded: Loaded,
    store: ActivationStore,
    config: SAEConfig,
    path: Path,
    target: ActivationStore | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> tuple[int, float]:
    """`fit_runs`, for one."""
    return fit_runs(loaded, store, {path: config}, target, device, progress)


def fit_runs(
    loaded: Loaded,
    store: ActivationStore,
    configs: Mapping[Path, SAEConfig],
    target: ActivationStore | None = None,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> tuple[int, float]:
    """Fit several, each into the run at its path, from its newest checkpoint if it has one; with a `target`, which
    `open_pair` has opened, transcoders.

    Those that are equally far, as all are at first, go side by side in one pass over the store.

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
    metadata = {"model_name": store.manifest["provenance"].get("run", ""), "hook_name": store.hook}
    if target is not None:
        metadata |= {"hook_name_out": target.hook}
    with ExitStack() as locks:
        for path in configs:
            locks.enter_context(writing(path))
        return _fit_groups(store, configs, rows, target, device, parent, metadata, progress)


def _fit_groups(
    store: ActivationStore,
    configs: Mapping[Path, SAEConfig],
    rows: np.ndarray,
    target: ActivationStore | None,
    device: str,
    parent: dict[str, Any],
    metadata: dict[str, Any],
    progress: Progress,
) -> tuple[int, float]:
    """Those that are equally far go together."""
    first = next(iter(configs.values()))
    steps = {path: newest_step(path, config, parent) for path, config in configs.items()}
    samples, now, seconds = 0, 0, 0.0
    for step in sorted(set(steps.values())):
        paths = [path for path in configs if steps[path] == step]
        feed = Feed(store, first, rows, target, device)
        trainers = [Trainer(feed, configs[path]) for path in paths]
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
    total, seconds = trainers[0].total_updates, 0.0
    with graceful_stop() as stop, progress.bar(title, 1, "fit") as update:

        def report(updates: int, total: int, metrics: list[dict[str, float]]) -> None:
            for run, figures in zip(runs, metrics, strict=True):
                run.log(updates, figures)
            worst = max(metrics, key=lambda figures: figures["whitened_fvu"])
            update(updates / total, f"whitened FVU {worst['whitened_fvu']:.3f}  dead {worst['dead']:.0f}")

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


def parent_of(loaded: Loaded, store: ActivationStore, target: ActivationStore | None) -> dict[str, Any]:
    """What a dictionary's run records of what it is fitted to."""
    parent = loaded.source | {"hook": store.hook, "store": str(store.path), "store_sha256": store.sha256}
    return parent if target is None else parent | {"target": str(target.path), "target_sha256": target.sha256}


def newest_step(path: Path, config: SAEConfig, parent: Mapping[str, Any]) -> int:
    """Of the checkpoints of the run at `path`; 0 where there is none.

    Raises:
        RunError: it is a run of a different kind, parent or configuration, which says where they differ.
    """
    if not Run(path).checkpoint_steps():
        return 0
    run = Run.open(path)
    theirs, parent = _absolute(run.meta["parent"] or {}), _absolute(parent)
    known = {name: value for name, value in parent.items() if name in theirs or name not in _DIGESTS}
    if replaced := _replaced(theirs, parent):
        raise RunError(
            f"{path} already holds a fit to what {replaced[0]} was before it was replaced; give another name with "
            "--name."
        )
    if run.meta["kind"] != "sae":
        raise RunError(f"{path} already holds a run of kind {run.meta['kind']!r}; give another name with --name.")
    recorded, given = (
        {"parent": of} | to_plain(settings) for of, settings in ((theirs, _config(run)), (known, config))
    )
    if other := differences(recorded, given):
        raise RunError(f"{path} already holds a fit of which {other}; give that, or another name with --name.")
    return run.checkpoint_steps()[-1]


def _absolute(parent: Mapping[str, Any]) -> dict[str, Any]:
    """With the same path for the same place, from wherever it was given."""
    return {name: str(Path(v).resolve()) if name in _DIGESTS.values() else v for name, v in parent.items()}


def _replaced(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Paths of what a run was fitted to and of which other contents are there now; earlier versions recorded none."""
    return [
        str(now[path])
        for digest, path in _DIGESTS.items()
        if now.get(path) == recorded.get(path) and recorded.get(digest, now.get(digest)) != now.get(digest)
    ]


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
