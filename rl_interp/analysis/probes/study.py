"""A study of a run by linear probes: what can be read off its layers, beside a random network, the raw observation and
shuffled labels, all following the same recorded episodes."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.playing import collect_store
from rl_interp.analysis.probes.regression import RARE, probe
from rl_interp.core.envs import EnvConfig, make_labelled
from rl_interp.core.envs.labelled import Concept
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import hook_point
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.replay import activations, replay
from rl_interp.core.stats import Estimate
from rl_interp.core.store import ActivationStore
from rl_interp.core.tables import markdown
from rl_interp.saliency import randomised

SHUFFLES = 20
"""Random orders of the labels that make the control."""

Column = dict[str, Estimate]
"""Scores by concept, of one thing that was probed."""


def probe_run(
    loaded: Loaded,
    hooks: Sequence[str],
    samples: int = 10_000,
    seed: int = 0,
    epsilon: float = 0.05,
    uncontrollable: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Score probes of all concepts of the run's environment. Writes a table and the result to the run's analyses/, and
    returns their paths and the mean score of each column.

    Args:
        hooks: hook points to read from; the labels are shuffled for the first.
        samples: steps to play at least.
        seed: of the episodes, the split and the controls.
        epsilon: probability of a random action.
        uncontrollable: whether to keep steps whose action makes no difference, such as those during an animation.

    Raises:
        HookError: no such hook point.
        UserError: an environment without concepts, samples that make fewer than 4 episodes, or no concept is both there
            and not there often enough.
    """
    for hook in hooks:
        hook_point(loaded.agent, hook)
    if not make_labelled(loaded.env).concepts:
        raise UserError(
            f"{loaded.env.id} tells nothing of its states that could be probed for; import or train the agent with "
            "--env.labels, a function that does."
        )
    with tempfile.TemporaryDirectory() as folder:
        store = collect_store(loaded, hooks[0], samples, Path(folder) / "store", seed, epsilon, progress=progress)
        columns = _columns(loaded, hooks, store, seed, uncontrollable, progress)
        if not all(columns.values()):
            raise UserError(
                f"no concept is there, and is not, in {RARE} of the {samples} samples on either side of the split; "
                "collect more (--samples)."
            )
    path = loaded.run.outputs / "analyses" / "probes"
    result = loaded.source | {
        "hooks": list(hooks), "samples": samples, "seed": seed, "epsilon": epsilon,
        "uncontrollable": uncontrollable,
        "scores": {name: {c: vars(score) for c, score in column.items()} for name, column in columns.items()},
    }  # fmt: skip
    write_json(path / "result.json", result)
    write_text(path / "table.md", probes_table(columns, make_labelled(loaded.env).concepts))
    means = {name: _mean(column) for name, column in columns.items()}
    return {"table": str(path / "table.md"), "result": str(path / "result.json"), "means": means}


def _columns(
    loaded: Loaded, hooks: Sequence[str], store: ActivationStore, seed: int, uncontrollable: bool, progress: Progress
) -> dict[str, Column]:
    """Scores by what was probed."""
    concepts, episodes = make_labelled(loaded.env).concepts, store.column("episode")
    labels = {name: store.column(name) for name in concepts}
    values = _values(loaded, hooks, store, seed, progress)
    kept = np.ones(len(episodes), bool)
    if not uncontrollable and "controllable" in labels:
        kept = labels["controllable"] > 0
    labels, episodes = {name: column[kept] for name, column in labels.items()}, episodes[kept]
    columns = {}
    with progress.bar("Probing", len(values) + 1, "layers") as update:
        for name in values:
            columns[name] = probe(values[name][kept], labels, concepts, episodes, seed)
            update(len(columns))
        columns["shuffled labels"] = probe(values[hooks[0]][kept], labels, concepts, episodes, seed, SHUFFLES)
        update(len(columns))
    return columns


def _values(
    loaded: Loaded, hooks: Sequence[str], store: ActivationStore, seed: int, progress: Progress
) -> dict[str, NDArray[np.floating]]:
    """`[N, D]` of each thing to be probed: the agent's layers, a random network's, and the observation."""
    agents = {"": loaded.agent, "random network: ": randomised(loaded.agent, seed)}
    parts: dict[str, list[NDArray[np.floating]]] = {}
    with progress.bar("Following the episodes", store.samples, "steps") as update:
        done = 0
        for episode in replay(loaded.env, store):
            for kind, agent in agents.items():
                for hook, found in activations(agent, episode, hooks).items():
                    parts.setdefault(kind + hook, []).append(found)
            parts.setdefault("raw observation", []).append(_raw(loaded.env, episode.obs))
            done += len(episode.actions)
            update(done)
    return {name: np.concatenate(parts.pop(name)) for name in list(parts)}


def _raw(env: EnvConfig, obs: NDArray[Any]) -> NDArray[np.float32]:
    """`[T, D]`: pixels as they are, symbols as zeros and ones."""
    counts = env.categories
    if counts is None:
        return obs.reshape(len(obs), -1).astype(np.float32)
    one_hot = [np.eye(count, dtype=np.float32)[obs[:, i]] for i, count in enumerate(counts)]
    return np.concatenate(one_hot, -1).reshape(len(obs), -1)


def probes_table(columns: Mapping[str, Column], concepts: Mapping[str, Concept]) -> str:
    """A row a concept, best scores of the first column first, in Markdown."""
    names = list(columns)
    first, rows = columns[names[0]], []
    for concept in sorted(first, key=lambda each: -first[each].value):
        kind = "AUROC" if concepts[concept].kind == "boolean" else "R²"
        rows.append([concept, kind, *(columns[name][concept].shown(".2f") for name in names)])
    return markdown(["concept", "score", *names], rows)


def _mean(column: Column) -> float:
    return float(np.mean([score.value for score in column.values()]))
