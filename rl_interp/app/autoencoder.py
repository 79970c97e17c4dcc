"""An autoencoder's run: fitting it, opening it with its agent, and measuring it on the agent."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sae as sae_package
from rl_interp.app.load import Loaded, load_agent
from rl_interp.app.progress import progress_bar
from rl_interp.core.config import from_plain, to_plain
from rl_interp.core.envs import make_labelled, make_vector
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.hooks import hook_point, run_with_hooks
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.interventions import Intervention, Mean, Patch, Zero, as_hooks
from rl_interp.core.rollout import evaluate
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore
from sae import SAE, Features, Feed, SAEConfig, Statement, Trainer, fit_all

Head = Callable[[Tensor], Tensor]
"""Preferences `[N, A]` from values `[N, D]` at a hook point."""


@dataclass(frozen=True)
class LoadedSAE:
    """An autoencoder with the agent, the activations and the split that it was fitted on."""

    run: Run
    sae: SAE
    agent: Loaded
    hook: str
    store: ActivationStore
    train_rows: np.ndarray
    held_out_rows: np.ndarray


def load_sae(path: Path | str) -> LoadedSAE:
    """Open an autoencoder's run with its agent and activations."""
    run = Run.open(path)
    if run.meta["kind"] != "sae":
        raise RunError(f"{run.path} is a run of kind {run.meta['kind']!r}; give a run that `rl-interp sae fit` made.")
    config = from_plain(SAEConfig, run.config, run.path / "config.yaml")
    parent = run.meta["parent"]
    agent = load_agent(parent["run"], parent["step"])
    store = ActivationStore(parent["store"])
    sae = sae_package.rebuild(run.load_weights(), config.k, transcodes=False)
    rows = sae_package.split_by_episode(
        np.repeat(store.column("episode"), store.positions), config.held_out, config.data_seed
    )
    return LoadedSAE(run, sae, agent, parent["hook"], store, *rows)


def fit_run(loaded: Loaded, store: ActivationStore, config: SAEConfig, path: Path) -> tuple[Trainer, float]:
    """Fit into the run at `path`, from its newest checkpoint if it has one; returns the seconds spent."""
    (trainer,), seconds = fit_runs(loaded, store, {path: config})
    return trainer, seconds


def fit_runs(loaded: Loaded, store: ActivationStore, configs: Mapping[Path, SAEConfig]) -> tuple[list[Trainer], float]:
    """Fit several side by side, in one pass over the store, each into the run at its path.

    Raises:
        UserError: the store is of another hook point, or the configurations read it differently.
        RunError: a path holds a run of another kind, parent or configuration.
        Interrupted: after Ctrl-C or SIGTERM, when every fit has written its checkpoint.
    """
    if store.hook not in loaded.agent.hook_points:
        raise UserError(f"{store.path} holds {store.hook!r}, which is no hook point of the agent in {loaded.run.path}.")
    first = next(iter(configs.values()))
    episodes = np.repeat(store.column("episode"), store.positions)
    rows, _ = sae_package.split_by_episode(episodes, first.held_out, first.data_seed)
    feed = Feed(store, first, rows)
    trainers = [Trainer(feed, config) for config in configs.values()]
    parent = loaded.source | {"hook": store.hook, "store": str(store.path)}
    runs = [_open_run(path, config, parent) for path, config in configs.items()]
    for run, trainer in zip(runs, trainers, strict=True):
        if run.checkpoint_steps():
            trainer.load_state_dict(run.load_state())
    title = f"Fitting {first.latents} latents" if len(runs) == 1 else f"Fitting {len(runs)} dictionaries"
    started = time.perf_counter()
    with graceful_stop() as stop, progress_bar(title, 1, "fit") as update:

        def progress(updates: int, total: int, metrics: list[dict[str, float]]) -> None:
            for run, figures in zip(runs, metrics, strict=True):
                run.log(updates, figures)
            worst = max(metrics, key=lambda figures: figures["fvu"])
            update(updates / total, f"FVU {worst['fvu']:.3f}  dead {worst['dead']:.0f}")

        fit_all(trainers, progress, should_stop=lambda: bool(stop))
    for run, trainer in zip(runs, trainers, strict=True):
        _save(run, trainer, store)
        run.close()
    if trainers[0].updates < trainers[0].total_updates:
        raise Interrupted(
            f"stopped at update {trainers[0].updates} of {trainers[0].total_updates}, saved in {runs[0].path}; run the "
            "same command again to go on."
        )
    return trainers, time.perf_counter() - started


def _open_run(path: Path, config: SAEConfig, parent: dict[str, Any]) -> Run:
    if not (path / "meta.json").exists():
        return Run.create(path, "sae", config, config.seed, parent)
    run = Run.open(path)
    if run.meta["kind"] != "sae" or run.config != to_plain(config) or run.meta["parent"] != to_plain(parent):
        raise RunError(
            f"{path} already holds a run of another kind, parent or configuration; give another name with --as."
        )
    return run


def _save(run: Run, trainer: Trainer, store: ActivationStore) -> None:
    sae = trainer.sae()
    run.save_checkpoint(trainer.updates, sae.state_dict(), trainer.state_dict(), keep=1)
    metadata = {"model_name": store.manifest["provenance"].get("run", ""), "hook_name": store.hook}
    sae_package.save(sae, run.path / "sae_lens", metadata)


def metrics_json(fitted: LoadedSAE) -> dict[str, Any]:
    """Reconstruction and use of latents on held-out episodes, and what the splice does to the policy there."""
    held_out = sae_package.evaluate(fitted.sae, fitted.store, fitted.held_out_rows)
    everywhere = sae_package.evaluate(fitted.sae, fitted.store, np.arange(len(fitted.store)))
    return {
        **{name: value for name, value in asdict(held_out).items() if name != "samples"},
        "dead_fraction": everywhere.dead_fraction,  # of all the data, so that a rare feature is not called dead
        "train_fvu": sae_package.evaluate(fitted.sae, fitted.store, fitted.train_rows).fvu,
        **_policy_error(fitted),
    }


@torch.no_grad()
def _policy_error(fitted: LoadedSAE) -> dict[str, float]:
    """Only where stored rows are whole values of the hook point, so that they can be patched in."""
    if fitted.store.positions > 1:
        return {}
    head = head_of(fitted.agent, fitted.hook)
    if head is None:
        return {}
    x = torch.from_numpy(fitted.store.read(fitted.held_out_rows[:8192]))
    original, spliced = head(x), head(fitted.sae(x))
    agreement = {"action_agreement": sae_package.action_agreement(original, spliced)}
    if fitted.agent.has_q_values:
        return agreement | {"q_nmse": sae_package.q_nmse(original, spliced)}
    return agreement | {"policy_kl": sae_package.policy_kl(original, spliced)}


def head_of(loaded: Loaded, hook: str) -> Head | None:
    """What the agent makes of the values at a vector hook point.

    Its linear head where it has one; else the agent itself, on blank observations with the values
    patched in, which holds where nothing else of the observation reaches the preferences. None where
    something does: in a recurrent network, whose state depends on the past too.
    """
    point = hook_point(loaded.agent, hook)
    if point.head is not None:
        return loaded.agent.get_submodule(point.head)
    if loaded.agent.initial_state(1) != ():
        return None

    def head(x: Tensor) -> Tensor:
        observations = torch.zeros(len(x), *loaded.env.observation_shape, dtype=torch.uint8)
        return run_with_hooks(loaded.agent, observations, hooks=as_hooks([Patch(hook, source=x)])).preferences

    return head


def play_spliced(
    fitted: LoadedSAE, episodes: int, seed: int, epsilon: float, known: Mapping[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """Returns of whole episodes: as trained (`original`), with the autoencoder spliced in, and with the layer ablated.

    `known` spares conditions whose returns were measured already, under the same seed and epsilon.
    """
    mean = torch.from_numpy(fitted.store.read(fitted.train_rows).mean(0))
    conditions: dict[str, list[Intervention]] = {
        "original": [],
        "spliced": [sae_package.splice(fitted.sae, fitted.hook, fitted.store.width)],
        "zero": [Zero(fitted.hook)],
        "mean": [Mean(fitted.hook, mean=mean)],
    }
    returns = dict(known or {})
    missing = [condition for condition in conditions if condition not in returns]
    env = make_vector(fitted.agent.env, min(episodes, 16))
    with progress_bar("Playing spliced and ablated", len(missing) * episodes, "episodes") as update:
        for i, condition in enumerate(missing):
            returns[condition] = evaluate(
                fitted.agent.agent, env, episodes, seed=seed, epsilon=epsilon, interventions=conditions[condition],
                progress=lambda finished, before=i * episodes: update(before + finished),
            ).returns  # fmt: skip
    env.close()
    recovered = sae_package.return_recovered(returns["original"], returns["spliced"], returns["zero"])
    return {
        "return_recovered": recovered and recovered[0],
        "return_recovered_interval": recovered and [recovered[1].low, recovered[1].high],
        "returns": {condition: returns[condition].tolist() for condition in conditions},
        "controls": {condition: float(returns[condition].mean()) for condition in conditions},
    }


def coverage_json(fitted: LoadedSAE) -> dict[str, Any] | None:
    """What the features tell of the game's ground truth on held-out episodes, beside a random dictionary of the same
    size, the raw neurons, PCA, ICA and NMF; None where the store has no labels."""
    store, train, held_out = fitted.store, fitted.train_rows, fitted.held_out_rows
    concepts = make_labelled(fitted.agent.env).concepts if store.positions == 1 else {}
    names = [name for name in concepts if concepts[name].kind == "boolean" and name in store.columns()]
    columns = {name: store.column(name).astype(bool) for name in names}
    names = [name for name in names if all(0 < columns[name][rows].mean() < 1 for rows in (train, held_out))]
    if not names:
        return None
    labels = np.stack([columns[name] for name in names], 1)
    config = from_plain(SAEConfig, fitted.run.config, fitted.run.path / "config.yaml")
    sets = {"features": fitted.sae, "random dictionary": sae_package.random_dictionary(store, config, train)}

    def encoded(sae: SAE) -> tuple[Features, Features]:
        of_train, of_held_out = (Features(sae_package.encode_rows(sae, store, rows)) for rows in (train, held_out))
        return of_train, of_held_out

    features = {name: encoded(sae) for name, sae in sets.items()}
    features |= sae_package.coordinates(store.read(train), store.read(held_out))
    scores = {name: sae_package.coverage(*both, labels[train], labels[held_out]) for name, both in features.items()}
    return {
        "concepts": names,
        "rates": [float(rate) for rate in labels[held_out].mean(0)],
        "scores": {
            name: {kind: [float(v) for v in values] for kind, values in asdict(score).items()}
            for name, score in scores.items()
        },
        "means": {
            name: {kind: float(np.mean(values)) for kind, values in asdict(score).items()}
            for name, score in scores.items()
        },
    }


def judge_statements(fitted: LoadedSAE, texts: Sequence[str], states: int, count: int) -> list[dict[str, Any]]:
    """Put statements to the test on held-out states; without any, `count` that the training states suggest.

    Raises:
        UserError: preferences can't be computed from the hook point alone, or a statement can't be read.
    """
    head = head_of(fitted.agent, fitted.hook)
    if head is None or fitted.store.positions > 1:
        raise UserError(
            f"statements are tested where preferences follow from the hook point alone; {fitted.hook!r} is none such."
        )
    encoded = Features(sae_package.encode_rows(fitted.sae, fitted.store, fitted.train_rows))
    high, actions = encoded.quantile(0.99), fitted.agent.env.action_names
    if texts:
        statements = [
            Statement.parse(text, actions, lambda name: _best_feature(fitted, encoded, name)) for text in texts
        ]
    else:
        statements = _suggested(fitted, encoded, high, head, count)
    rows = fitted.held_out_rows[:: max(1, len(fitted.held_out_rows) // states)]
    x, episodes = torch.from_numpy(fitted.store.read(rows)), fitted.store.column("episode")[rows]
    greedy = fitted.agent.has_q_values
    outcomes = [
        sae_package.judge(each, fitted.sae, x, episodes, head, float(high[each.feature]), greedy) for each in statements
    ]
    return [asdict(outcome) for outcome in outcomes]


def _best_feature(fitted: LoadedSAE, encoded: Features, concept: str) -> int:
    """The feature that tells a concept best in training."""
    labels = fitted.store.column(concept)[fitted.train_rows].astype(bool)
    return int(np.nan_to_num(encoded.auroc(labels[:, None])[:, 0], nan=-1).argmax())


def _suggested(fitted: LoadedSAE, encoded: Features, high: np.ndarray, head: Head, count: int) -> list[Statement]:
    """For the features whose clamping changes most greedy actions in training, the action that gains most there."""
    rows = fitted.train_rows[:: max(1, len(fitted.train_rows) // 512)]
    x = torch.from_numpy(fitted.store.read(rows))
    effects = sae_package.clamp_effects(fitted.sae, x, head, torch.from_numpy(high))
    alive = encoded.counts() > 0
    order = np.argsort([-(effect.changed - effect.changed_control) * alive[f] for f, effect in enumerate(effects)])
    names, found = fitted.agent.env.action_names, []
    for feature in order[:count]:
        action = int(np.argmax(effects[feature].towards))
        found.append(Statement(int(feature), "high", (action,), "more", f"{feature} high: {names[action]} more"))
    return found
