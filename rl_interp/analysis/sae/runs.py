"""A dictionary's run, opened with its agent and the activations that it was fitted on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import rl_interp.sae as sae_package
from rl_interp.agents.load import Loaded, load_agent
from rl_interp.core.config import from_plain
from rl_interp.core.device import pick_device
from rl_interp.core.envs import EnvConfig, GymConfig
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.interventions import Intervention
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.read import require
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore
from rl_interp.sae import SAE, Encoding, SAEConfig

DIGESTS = {"weights_sha256": "run", "store_sha256": "store", "target_sha256": "target", "start_sha256": "start"}
"""In a dictionary's parent: what tells whether it is as it was, and where it lies."""


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
    def env(self) -> EnvConfig:
        """What the agent plays, with the labels that were collected: a Gymnasium environment may have got them then."""
        given = self.store.manifest["provenance"].get("env")
        if not isinstance(self.agent.env, GymConfig) or given is None:
            return self.agent.env
        return from_plain(GymConfig, given, self.store.path)

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
    run = _open(path)
    config = config_of(run)
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
    for what in replaced(parent, parent_of(agent, store, target if transcodes else None)):
        progress.warn(
            f"{what} is not what {run.path} was fitted to: it was replaced since; figures of the two together mean "
            "nothing."
        )
    step = run.newest_step()
    sae = dictionary_of(path, step).to(pick_device(device))
    if sae.d_in != store.width or sae.d_out != target.width:
        raise RunError(
            f"{run.path} is of layers {sae.d_in} and {sae.d_out} wide, and {store.path} has {store.width}, "
            f"{target.path} {target.width}; collect the activations that it was fitted to again."
        )
    return LoadedSAE(run, step, config, sae, agent, parent["hook"], store, target, *split(store, config))


def dictionary_of(path: Path | str, step: int | None = None) -> SAE:
    """The dictionary of a run, the newest or that of a step, without what it was fitted to.

    Raises:
        RunError: the run holds none.
    """
    run = _open(path)
    transcodes = "target" in (run.meta.get("parent") or {})
    return sae_package.rebuild(run.weights(step, infinite=("threshold",)), config_of(run).k, transcodes)


def _open(path: Path | str) -> Run:
    run = Run.open(path)
    if run.meta["kind"] != "sae":
        raise RunError(f"{run.path} is a run of kind {run.meta['kind']!r}; give a run that `rl-interp sae fit` made.")
    return run


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


def config_of(run: Run) -> SAEConfig:
    """Runs from before there was a choice kept every row, and did not weigh the policy."""
    before = {"uncontrollable": True, "policy_weight": 0.0}
    return from_plain(SAEConfig, before | run.config, run.path / "config.yaml")


def parent_of(loaded: Loaded, store: ActivationStore, target: ActivationStore | None) -> dict[str, Any]:
    """What a dictionary's run records of what it is fitted to."""
    parent = loaded.source | {"hook": store.hook, "store": str(store.path), "store_sha256": store.sha256}
    return parent if target is None else parent | {"target": str(target.path), "target_sha256": target.sha256}


def replaced(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Paths of what a run was fitted to and of which other contents are there now; earlier versions recorded none."""
    return [
        str(now[path])
        for digest, path in DIGESTS.items()
        if now.get(path) == recorded.get(path) and recorded.get(digest, now.get(digest)) != now.get(digest)
    ]
