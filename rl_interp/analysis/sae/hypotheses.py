"""Hypotheses about a dictionary's features, tested on its agent."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

import rl_interp.sae as sae_package
from rl_interp.analysis.sae.concepts import of_states
from rl_interp.analysis.sae.runs import LoadedSAE
from rl_interp.analysis.sae.states import states_of
from rl_interp.core.errors import UserError, unknown
from rl_interp.core.files import write_json
from rl_interp.core.progress import SILENT, Progress
from rl_interp.sae import SAE, Features, Hypothesis, States


def evaluate_claims(
    fitted: LoadedSAE, texts: Sequence[str], states: int, count: int, progress: Progress = SILENT
) -> dict[str, Any]:
    """Test hypotheses, or, without any, `count` predictive features, and write the outcomes into the run.

    Args:
        texts: as `Hypothesis.parse` reads them.
        states: held-out states to test on.
    """
    if texts:
        found = {"features": evaluate_hypotheses(fitted, texts, states, progress)}
    else:
        found = evaluate_predictive_features(fitted, states, count, progress)
    write_json(fitted.run.outputs / "analyses" / "hypotheses.json", found | {"made_from": fitted.made_from})
    summary = {
        name: {
            "passed": sum(each["passed"] for each in outcomes),
            "exceeds": sum(each["exceeds"] for each in outcomes) / len(outcomes),
        }
        for name, outcomes in found.items()
    }
    return {"run": str(fitted.run.path), "summary": summary, "outcomes": found["features"]}


def evaluate_hypotheses(
    fitted: LoadedSAE, texts: Sequence[str], states: int, progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """Put hypotheses to the test on held-out states.

    Raises:
        UserError: the agent has a memory between the hook point and its preferences, or continuous actions, or a
            hypothesis can't be read.
    """
    held_out, actions = _held_out(fitted, states), fitted.agent.env.action_names
    encoded = Features(fitted.encoded(fitted.train_rows))
    hypotheses = [Hypothesis.parse(text, actions, lambda name: _best_feature(fitted, encoded, name)) for text in texts]
    return _judged(hypotheses, fitted.sae, encoded, held_out, progress)


def evaluate_predictive_features(
    fitted: LoadedSAE, states: int, count: int, progress: Progress = SILENT
) -> dict[str, list[dict[str, Any]]]:
    """Test on held-out states whether `count` features bring about the actions that they predict in training: features
    of the dictionary, and of a random one of the same size.

    Raises:
        UserError: the agent has a memory between the hook point and its preferences, or continuous actions.
    """
    held_out, actions = _held_out(fitted, states), fitted.agent.env.action_names
    random = sae_package.random_dictionary(fitted.store, fitted.config, fitted.train_rows)
    encodings = {
        "features": (fitted.sae, fitted.encoded(fitted.train_rows)),
        "random dictionary": (random, sae_package.encode_rows(random, fitted.store, fitted.train_rows)),
    }
    taken, found = fitted.store.column("action", fitted.train_rows), {}
    for name, (sae, encoding) in encodings.items():
        encoded = Features(encoding)
        predictive = sae_package.predictive_features(encoded, taken, count)
        hypotheses = [Hypothesis(f, "high", (a,), "more", f"{f} high: {actions[a]} more") for f, a in predictive]
        found[name] = _judged(hypotheses, sae, encoded, held_out, progress)
    return found


def _held_out(fitted: LoadedSAE, states: int) -> States:
    if fitted.agent.agent.continuous:
        raise UserError(
            f"{fitted.run.path} is of an agent with continuous actions, and hypotheses are about which action is "
            "chosen; `rl-interp sae report` shows how far each feature moves the action."
        )
    held_out = states_of(fitted, fitted.held_out_rows, states)
    if held_out is None:
        raise UserError(
            f"hypotheses are tested where preferences follow from the layer and what is in view; after {fitted.hook!r} "
            "this agent has a memory."
        )
    return held_out


def _judged(
    hypotheses: Sequence[Hypothesis], sae: SAE, encoded: Features, states: States, progress: Progress
) -> list[dict[str, Any]]:
    high, outcomes = encoded.quantile(0.99), []
    with progress.bar("Testing hypotheses", len(hypotheses), "hypotheses") as update:
        for each in hypotheses:
            value = float(high[each.feature]) if each.feature < len(high) else 0.0  # `evaluate_hypothesis` refuses it
            outcomes.append(asdict(sae_package.evaluate_hypothesis(each, sae, states, value)))
            update(len(outcomes))
    return outcomes


def _best_feature(fitted: LoadedSAE, encoded: Features, concept: str) -> int:
    """The feature that tells a concept of the state best in training.

    Raises:
        UserError: no such concept in the ground truth, it is the same in all training states, or the store's labels
            are of an earlier version.
    """
    if concept not in (known := of_states(fitted)):
        raise UserError(unknown("concept", concept, known))
    labels = fitted.store.column(concept, fitted.train_rows).astype(bool)
    if labels.all() or not labels.any():
        always = "true" if labels.all() else "false"
        raise UserError(
            f"{concept!r} is {always} in every state that was fitted on; name a different concept, or a feature."
        )
    return int(np.nan_to_num(encoded.auroc(labels[:, None])[:, 0], nan=-1).argmax())
