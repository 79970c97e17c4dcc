"""Evaluating a dictionary on its agent: reconstruction, returns through it, and the concepts that it tells."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import rl_interp.sae as sae_package
from rl_interp.analysis.sae.concepts import Labelled, labelled
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.analysis.sae.states import linear_head
from rl_interp.core.agent import Agent
from rl_interp.core.envs import make_vector
from rl_interp.core.files import write_json
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.interventions import Intervention, Mean, Resample, Zero, as_hooks
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.replay import activations, replay
from rl_interp.core.rollout import evaluate
from rl_interp.core.stats import plain
from rl_interp.core.store import ActivationStore
from rl_interp.sae import SAE, Activations, ArrayActivations, Encoding, Features, Metrics
from rl_interp.sae.data import batches
from rl_interp.saliency import randomised

COMPARED = 8192
"""Held-out states whose preferences are compared with those through the autoencoder."""
RECOVERED = {"return_recovered": "zero", "return_recovered_mean": "mean", "return_recovered_resample": "resample"}
"""Shares of the return recovered, and the ablation that each is relative to."""
_BANK = 1024
"""Training states from which resample ablation draws."""


def evaluate_run(
    fitted: LoadedSAE,
    episodes: int,
    seed: int,
    epsilon: float,
    random_network: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Everything that `metrics_json`, `play_spliced` and `coverage_json` give, written into the run."""
    result = {
        "run": str(fitted.run.path),
        **metrics_json(fitted),
        **play_spliced(fitted, episodes, seed, epsilon, progress=progress),
        "coverage": coverage_json(fitted, random_network, progress),
        "made_from": fitted.made_from,
    }
    write_json(fitted.run.outputs / "analyses" / "evaluation.json", result)
    return result


def metrics_json(fitted: LoadedSAE, in_memory: bool = True) -> dict[str, Any]:
    """Reconstruction and use of latents on held-out episodes, and what the splice does to the policy there.

    Args:
        in_memory: whether `fitted.encoding` is used, which stays in memory for what comes next; else rows are encoded
            as they are read.
    """

    def known(rows: NDArray[np.integer]) -> Encoding | None:
        return fitted.encoded(rows) if in_memory else None

    def figures(rows: NDArray[np.integer]) -> Metrics:
        return sae_package.evaluate(fitted.sae, fitted.store, rows, fitted.target, encoding=known(rows))

    rows = fitted.held_out_rows
    train, held_out = figures(fitted.train_rows), figures(rows)
    # Of all the data, so that a rare feature is not called dead, and there are enough to call one ultra-rare.
    everywhere = sae_package.density_shares(train.fired + held_out.fired, len(fitted.rows))
    episodes = fitted.store.column("episode", rows)
    shares = sae_package.generality(fitted.sae, fitted.store, rows, episodes, encoding=known(rows))
    living = shares[shares > 0]
    once = living * len(np.unique(episodes)) < 1.5
    return {
        **{name: value for name, value in asdict(held_out).items() if name not in ("samples", "fired")},
        "dead_fraction": everywhere["dead_fraction"],
        "ultra_rare_fraction": everywhere["ultra_rare_fraction"],
        "train_fvu": train.fvu,
        # Of the held-out episodes, the share in which a latent fires; and how many latents fire in a single one.
        "generality": float(living.mean()),
        "one_episode_fraction": float(once.mean()),
        **_policy_error(fitted),
    }


@torch.no_grad()
def _policy_error(fitted: LoadedSAE) -> dict[str, Any]:
    """How far the splice changes preferences in held-out states. Where a linear head makes them of the stored values
    alone, the same with the layer at zero, at its mean and at a different state's value, under `ablated`; elsewhere the
    agent follows the episodes. Of continuous actions, the error of the action as a share of its variance."""
    target, rows, greedy = fitted.target, fitted.held_out_rows[:COMPARED], fitted.agent.has_q_values

    def error(original: Tensor, given: Tensor) -> dict[str, float | None]:
        if fitted.agent.agent.continuous:
            return {"action_nmse": sae_package.q_nmse(original, given)}
        agreement: dict[str, float | None] = {"action_agreement": sae_package.action_agreement(original, given)}
        if greedy:
            return agreement | {"q_nmse": sae_package.q_nmse(original, given)}
        return agreement | {"policy_kl": sae_package.policy_kl(original, given)}

    head = linear_head(fitted.agent.agent, target.hook) if target.positions == 1 else None
    if head is None:
        return error(*_followed(fitted))
    x, y = (torch.from_numpy(each.read(rows)).to(fitted.sae.W_dec.device) for each in (fitted.store, target))
    drawn = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    original = head(y)
    ablated = {"zero": torch.zeros_like(y), "mean": _mean(fitted).to(y).expand_as(y), "resample": y[drawn.to(y.device)]}
    return error(original, head(fitted.sae(x))) | {
        "ablated": {name: error(original, head(value)) for name, value in ablated.items()}
    }


def _mean(fitted: LoadedSAE) -> Tensor:
    """`[D_out]`: of what the dictionary predicts, in training."""
    total = np.zeros(fitted.target.width)
    for batch in batches(fitted.target, fitted.train_rows, 4096):
        total += batch.sum(0, dtype=np.float64)
    return torch.from_numpy((total / len(fitted.train_rows)).astype(np.float32))


def _bank(fitted: LoadedSAE) -> Tensor:
    """`[n, ...]`: the layer that the dictionary predicts, whole, at random states of the training episodes."""
    target = fitted.target
    first = fitted.train_rows[:: target.positions]  # of each state: a split has all of its positions
    chosen = np.random.default_rng(0).choice(first, min(len(first), _BANK), replace=False) // target.positions
    whole = target if target.positions == 1 else ActivationStore(target.path, whole=True)
    return torch.from_numpy(whole.read(chosen)).unflatten(1, whole.sample_shape)


def _followed(fitted: LoadedSAE) -> tuple[Tensor, Tensor]:
    """Preferences `[N, A]`, as trained and with the splice, as the agent follows the held-out episodes."""
    agent, device = fitted.agent.agent, fitted.agent.agent.device
    spliced = as_hooks([fitted.splice()])
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    number, kept = fitted.store.column("episode"), fitted.held_out_rows // fitted.store.positions
    episodes = np.unique(number[kept])
    for name, episode in zip(episodes, replay(fitted.agent.env, fitted.store, episodes), strict=True):
        counted = torch.from_numpy(np.isin(np.flatnonzero(number == name), kept)).to(device)
        obs, actions = (torch.from_numpy(each)[:, None].to(device) for each in (episode.obs, episode.actions))
        for preferences, hooks in zip(found, ({}, spliced), strict=True):
            out = run_with_hooks(agent, obs, hooks=hooks, actions=actions, unroll=True)
            preferences.append(out.preferences.flatten(0, 1)[counted])
        if sum(map(len, found[0])) >= COMPARED:
            break
    return torch.cat(found[0]), torch.cat(found[1])


def play_spliced(
    fitted: LoadedSAE,
    episodes: int,
    seed: int,
    epsilon: float,
    known: Mapping[str, np.ndarray] | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Returns of whole episodes: as trained (`original`), with the dictionary spliced in, and with the layer that it
    predicts ablated; and the share of what ablation loses that the dictionary recovers, against each of its forms.

    `known` has the returns of conditions that were played already, under the same seed and epsilon.
    """
    conditions: dict[str, list[Intervention]] = {
        "original": [],
        "spliced": [fitted.splice()],
        "zero": [Zero(fitted.target.hook)],
        "mean": [Mean(fitted.target.hook, mean=_mean(fitted))],
        "resample": [Resample(fitted.target.hook, bank=_bank(fitted), generator=torch.Generator().manual_seed(seed))],
    }
    returns = dict(known or {})
    missing = {condition: done for condition, done in conditions.items() if condition not in returns}
    returns |= _play(fitted, "Playing spliced and ablated", missing, episodes, seed, epsilon, progress)
    shares: dict[str, Any] = {}
    for name, ablation in RECOVERED.items():
        recovered = sae_package.return_recovered(returns["original"], returns["spliced"], returns[ablation])
        shares[name] = recovered and recovered.value
        shares[f"{name}_interval"] = plain(recovered)
    return shares | _means({condition: returns[condition] for condition in conditions})


def play_through(fitted: LoadedSAE, episodes: int, progress: Progress = SILENT) -> dict[str, Any]:
    """Returns of whole episodes as trained and with the dictionary spliced in, the first of `play_spliced`."""
    conditions = {"original": [], "spliced": [fitted.splice()]}
    return _means(_play(fitted, "Playing spliced", conditions, episodes, progress=progress))


def _play(
    fitted: LoadedSAE,
    title: str,
    conditions: Mapping[str, Sequence[Intervention]],
    episodes: int,
    seed: int = 1_000,
    epsilon: float = 0.001,
    progress: Progress = SILENT,
) -> dict[str, NDArray[np.float64]]:
    """Returns `[episodes]` under each condition's interventions, of episodes that begin alike."""
    env, returns = make_vector(fitted.agent.env, min(episodes, 16)), {}
    with progress.bar(title, len(conditions) * episodes, "episodes") as update:
        for i, (condition, interventions) in enumerate(conditions.items()):
            returns[condition] = evaluate(
                fitted.agent.agent, env, episodes, seed=seed, epsilon=epsilon, interventions=interventions,
                progress=lambda finished, before=i * episodes: update(before + finished),
            ).returns  # fmt: skip
    env.close()
    return returns


def _means(returns: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    return {
        "returns": {condition: each.tolist() for condition, each in returns.items()},
        "controls": {condition: float(each.mean()) for condition, each in returns.items()},
    }


def coverage_json(fitted: LoadedSAE, random_network: bool, progress: Progress = SILENT) -> dict[str, Any] | None:
    """What the features tell of the game's ground truth on held-out episodes, beside a random dictionary of the same
    size, the raw neurons, PCA, ICA and NMF, and, if `random_network`, a dictionary fitted in the same way to the agent
    with its weights shuffled, which sees the same episodes; its step size, unless one was given, is what today's rule
    gives for its own activations. None where there is no ground truth."""
    known = labelled(fitted, progress)
    if known is None or not known.names:
        return None
    labels = known.train_labels, known.held_out_labels
    # One set of features at a time: each is let go once it is scored.
    found = _compared(fitted, known, random_network, progress)
    scores = {name: asdict(sae_package.coverage(*both, *labels)) for name, both in found}
    return {
        "concepts": known.names,
        "rates": [float(rate) for rate in known.held_out_labels.mean(0)],
        "scores": {
            name: {score: [float(v) for v in values] for score, values in of_set.items()}
            for name, of_set in scores.items()
        },
        "means": {
            name: {score: float(np.mean(values)) for score, values in of_set.items()} for name, of_set in scores.items()
        },
    }


def _compared(
    fitted: LoadedSAE, known: Labelled, random_network: bool, progress: Progress
) -> Iterator[tuple[str, tuple[Features, Features]]]:
    """The dictionary's features and what they are held against, each on the training and the held-out rows."""
    store, sides = fitted.store, (known.train, known.held_out)

    def encoded(sae: SAE, data: Activations) -> tuple[Features, Features]:
        train, held_out = (Features(sae_package.encode_rows(sae, data, rows)) for rows in sides)
        return train, held_out

    train, held_out = (Features(fitted.encoded(rows)) for rows in sides)
    yield "features", (train, held_out)
    del train, held_out
    random = sae_package.random_dictionary(store, fitted.config, fitted.train_rows)
    yield "random dictionary", encoded(random, store)
    if random_network:
        shuffled = randomised(fitted.agent.agent, seed=0)

        def seen(layer: ActivationStore) -> ArrayActivations:
            return ArrayActivations(follow(shuffled, layer.hook, layer.width, fitted, progress=progress))

        values, target = seen(store), seen(fitted.target) if fitted.sae.transcodes else None
        of_shuffled = sae_package.fit(values, replace(fitted.config, policy_weight=0.0), fitted.train_rows, target)
        yield "random network's dictionary", encoded(of_shuffled, values)
        del values, target
    yield from sae_package.coordinates(store.read(sides[0]), store.read(sides[1]))


def follow(
    agent: Agent,
    hook: str,
    width: int,
    fitted: LoadedSAE,
    episodes: NDArray[np.integer] | None = None,
    progress: Progress = SILENT,
) -> NDArray[np.float32]:
    """`[rows, width]`: a hook point's values in any agent that follows the episodes of an autoencoder's store, all or
    those given, row by row of the store."""
    store, values = fitted.store, []
    total = store.samples if episodes is None else int(np.isin(store.column("episode"), episodes).sum())
    with progress.bar("Following the episodes", total, "steps") as update:
        for episode in replay(fitted.agent.env, store, episodes):
            of_samples = activations(agent, episode, [hook])[hook]
            values.append(of_samples.reshape(len(of_samples), width, -1).swapaxes(1, 2).reshape(-1, width))
            update(sum(map(len, values)) // store.positions)
    return np.concatenate(values)
