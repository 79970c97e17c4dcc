"""An autoencoder's run: fitting it, opening it with its agent, and measuring it on the agent."""

import time
from collections.abc import Callable
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
from rl_interp.core.envs import make_vector
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.hooks import hook_point, run_with_hooks
from rl_interp.core.interrupt import Interrupted, graceful_stop
from rl_interp.core.interventions import Intervention, Mean, Patch, Zero, as_hooks
from rl_interp.core.rollout import evaluate
from rl_interp.core.run import Run
from rl_interp.core.store import ActivationStore
from sae import SAE, Feed, SAEConfig, Trainer

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
    if store.hook not in loaded.agent.hook_points:
        raise UserError(f"{store.path} holds {store.hook!r}, which is no hook point of the agent in {loaded.run.path}.")
    episodes = np.repeat(store.column("episode"), store.positions)
    rows, _ = sae_package.split_by_episode(episodes, config.held_out, config.data_seed)
    trainer = Trainer(Feed(store, config, rows), config)
    parent = loaded.source | {"hook": store.hook, "store": str(store.path)}
    if (path / "meta.json").exists():
        opened = Run.open(path)
        if (
            opened.meta["kind"] != "sae"
            or opened.config != to_plain(config)
            or opened.meta["parent"] != to_plain(parent)
        ):
            raise RunError(
                f"{path} already holds a run of another kind, parent or configuration; give another name with --as."
            )
    else:
        opened = Run.create(path, "sae", config, config.seed, parent)
    if opened.checkpoint_steps():
        trainer.load_state_dict(opened.load_state())
    started = time.perf_counter()
    with graceful_stop() as stop, progress_bar(f"Fitting {config.latents} latents", 1, "fit") as update:

        def progress(updates: int, total: int, metrics: dict[str, float]) -> None:
            opened.log(updates, metrics)
            update(updates / total, f"FVU {metrics['fvu']:.3f}  dead {metrics['dead']:.0f}")

        trainer.run(progress, should_stop=lambda: bool(stop))
        _save(opened, trainer, store)
        opened.close()
        if trainer.updates < trainer.total_updates:
            raise Interrupted(
                f"stopped at update {trainer.updates} of {trainer.total_updates}, saved in {path}; run the same "
                "command again to go on."
            )
    return trainer, time.perf_counter() - started


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
    fitted: LoadedSAE, episodes: int, seed: int, epsilon: float, original: np.ndarray | None = None
) -> dict[str, Any]:
    """Returns of whole episodes: as trained, with the autoencoder spliced in, and with the layer ablated.

    `original` spares the first, if its returns were measured already under the same seed and epsilon.
    """
    mean = torch.from_numpy(fitted.store.read(fitted.train_rows).mean(0))
    conditions: dict[str, list[Intervention]] = {} if original is not None else {"original": []}
    conditions |= {
        "spliced": [sae_package.splice(fitted.sae, fitted.hook, fitted.store.width)],
        "zero": [Zero(fitted.hook)],
        "mean": [Mean(fitted.hook, mean=mean)],
    }
    env = make_vector(fitted.agent.env, min(episodes, 16))
    returns = {} if original is None else {"original": original}
    with progress_bar("Playing spliced and ablated", len(conditions) * episodes, "episodes") as update:
        for i, (condition, interventions) in enumerate(conditions.items()):
            returns[condition] = evaluate(
                fitted.agent.agent, env, episodes, seed=seed, epsilon=epsilon, interventions=interventions,
                progress=lambda finished, before=i * episodes: update(before + finished),
            ).returns  # fmt: skip
    env.close()
    recovered = sae_package.return_recovered(returns["original"], returns["spliced"], returns["zero"])
    return {
        "return_recovered": recovered and recovered[0],
        "return_recovered_interval": recovered and [recovered[1].low, recovered[1].high],
        "returns": {condition: values.tolist() for condition, values in returns.items()},
        "controls": {condition: float(values.mean()) for condition, values in returns.items()},
    }
