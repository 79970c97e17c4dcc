"""What is measured of a dictionary on its agent: reconstruction, returns through it, concepts, statements."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import sae as sae_package
from rl_interp.analysis.probes import features as features_of
from rl_interp.analysis.probes import recorded
from rl_interp.app.dictionaries.concepts import labelled
from rl_interp.app.dictionaries.runs import Head, LoadedSAE, head_of
from rl_interp.app.progress import progress_bar
from rl_interp.core.agent import Agent
from rl_interp.core.config import from_plain
from rl_interp.core.envs import make_vector
from rl_interp.core.errors import UserError
from rl_interp.core.interventions import Intervention, Mean, Zero
from rl_interp.core.rollout import evaluate
from sae import SAE, Activations, ArrayActivations, Features, SAEConfig, Statement
from saliency import randomised


def metrics_json(fitted: LoadedSAE) -> dict[str, Any]:
    """Reconstruction and use of latents on held-out episodes, and what the splice does to the policy there."""
    sides = np.arange(len(fitted.store)), fitted.train_rows, fitted.held_out_rows
    everywhere, train, held_out = (
        sae_package.evaluate(fitted.sae, fitted.store, rows, fitted.target) for rows in sides
    )
    return {
        **{name: value for name, value in asdict(held_out).items() if name != "samples"},
        "dead_fraction": everywhere.dead_fraction,  # of all the data, so that a rare feature is not called dead
        "train_fvu": train.fvu,
        **_generality(fitted),
        **_policy_error(fitted),
    }


def _generality(fitted: LoadedSAE) -> dict[str, float]:
    """Over the latents that fire in held-out episodes: in what share of these each fires, and how many in one alone."""
    rows, positions = fitted.held_out_rows, fitted.store.positions
    episodes = fitted.store.column("episode")[rows // positions]
    shares = Features(sae_package.encode_rows(fitted.sae, fitted.store, rows)).generality(episodes)
    living = shares[shares > 0]
    once = living * len(np.unique(episodes)) < 1.5
    return {"generality": float(living.mean()), "one_episode_fraction": float(once.mean())}


@torch.no_grad()
def _policy_error(fitted: LoadedSAE) -> dict[str, Any]:
    """With the splice, and under `ablated` with the layer set to zero or to its mean. Only where stored rows are whole
    values of the hook point, so that they can be patched in."""
    target, rows = fitted.target, fitted.held_out_rows[:8192]
    head = head_of(fitted.agent, target.hook) if target.positions == 1 else None
    if head is None:
        return {}
    x, y = (torch.from_numpy(each.read(rows)).to(fitted.sae.W_dec.device) for each in (fitted.store, target))
    original, greedy = head(y), fitted.agent.has_q_values

    def error(replaced: Tensor) -> dict[str, float]:
        given = head(replaced)
        agreement = {"action_agreement": sae_package.action_agreement(original, given)}
        if greedy:
            return agreement | {"q_nmse": sae_package.q_nmse(original, given)}
        return agreement | {"policy_kl": sae_package.policy_kl(original, given)}

    mean = _mean(fitted).to(y).expand_as(y)
    return error(fitted.sae(x)) | {"ablated": {"zero": error(torch.zeros_like(y)), "mean": error(mean)}}


def _mean(fitted: LoadedSAE) -> Tensor:
    """`[D_out]`: of what the dictionary predicts, in training."""
    return torch.from_numpy(fitted.target.read(fitted.train_rows).mean(0))


def play_spliced(
    fitted: LoadedSAE, episodes: int, seed: int, epsilon: float, known: Mapping[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """Returns of whole episodes: as trained (`original`), with the dictionary spliced in, and with the layer that it
    predicts ablated.

    `known` spares conditions whose returns were measured already, under the same seed and epsilon.
    """
    conditions: dict[str, list[Intervention]] = {
        "original": [],
        "spliced": [fitted.splice()],
        "zero": [Zero(fitted.target.hook)],
        "mean": [Mean(fitted.target.hook, mean=_mean(fitted))],
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


def coverage_json(fitted: LoadedSAE, random_network: bool) -> dict[str, Any] | None:
    """What the features tell of the game's ground truth on held-out episodes, beside a random dictionary of the same
    size, the raw neurons, PCA, ICA and NMF, and, if `random_network`, a dictionary fitted in the same way to the agent
    with its weights shuffled, which sees the same episodes; None where there is no ground truth."""
    store, known = fitted.store, labelled(fitted)
    if known is None:
        return None
    train, held_out = known.train, known.held_out
    config = from_plain(SAEConfig, fitted.run.config, fitted.run.path / "config.yaml")

    def encoded(sae: SAE, data: Activations) -> tuple[Features, Features]:
        of_train, of_held_out = (Features(sae_package.encode_rows(sae, data, rows)) for rows in (train, held_out))
        return of_train, of_held_out

    features = {"features": encoded(fitted.sae, store)}
    features["random dictionary"] = encoded(sae_package.random_dictionary(store, config, fitted.train_rows), store)
    if random_network:
        shuffled = randomised(fitted.agent.agent, seed=0).eval()
        values, targets = (
            ArrayActivations(follow(shuffled, layer.hook, layer.width, fitted)) for layer in (store, fitted.target)
        )
        random = sae_package.fit(values, config, fitted.train_rows, targets if fitted.sae.transcodes else None)
        features["random network's dictionary"] = encoded(random, values)
    features |= sae_package.coordinates(store.read(train), store.read(held_out))
    labels = known.train_labels, known.held_out_labels
    scores = {name: sae_package.coverage(*both, *labels) for name, both in features.items()}
    return {
        "concepts": known.names,
        "rates": [float(rate) for rate in known.held_out_labels.mean(0)],
        "scores": {
            name: {kind: [float(v) for v in values] for kind, values in asdict(score).items()}
            for name, score in scores.items()
        },
        "means": {
            name: {kind: float(np.mean(values)) for kind, values in asdict(score).items()}
            for name, score in scores.items()
        },
    }


def follow(
    agent: Agent, hook: str, width: int, fitted: LoadedSAE, episodes: NDArray[np.integer] | None = None
) -> NDArray[np.float32]:
    """`[rows, width]`: a hook point's values in another agent that follows the episodes of an autoencoder's store, all
    or those given, row by row of the store."""
    store, values = fitted.store, []
    total = store.samples if episodes is None else int(np.isin(store.column("episode"), episodes).sum())
    with progress_bar("Following the episodes", total, "decisions") as update:
        for episode in recorded(fitted.agent.env, store, episodes):
            of_samples = features_of(agent, episode, [hook])[hook]
            values.append(of_samples.reshape(len(of_samples), width, -1).swapaxes(1, 2).reshape(-1, width))
            update(sum(map(len, values)) // store.positions)
    return np.concatenate(values)


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
