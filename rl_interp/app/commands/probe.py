"""`rl-interp probe`."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.analysis.probes.regression import Score, probe
from rl_interp.app.commands.analyse import collect_store
from rl_interp.app.progress import progress_bar
from rl_interp.core.envs import make_labelled
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import hook_point
from rl_interp.core.replay import activations, replay
from rl_interp.core.stats import shown
from rl_interp.saliency import randomised

Column = dict[str, Score]


def probe_run(
    run: tyro.conf.Positional[str],
    hooks: tuple[str, ...],
    samples: int = 10_000,
    seed: int = 0,
    epsilon: float = 0.05,
    uncontrollable: bool = False,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Score linear probes of the environment's ground truth, beside a random network, the raw observation and
    shuffled labels, on episodes that the probes were not fitted on.

    Args:
        run: Name under runs/ or a path.
        hooks: Hook points to read from, such as deter stoch embed.
        samples: Decisions to play.
        seed: Of the episodes, the split and the controls.
        epsilon: Probability of a random action.
        uncontrollable: Whether to keep decisions that can make no difference, such as those during a game's animations.
        checkpoint: Step of the checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    loaded = load_agent(run, checkpoint, device)
    for hook in hooks:
        hook_point(loaded.agent, hook)
    columns = _columns(loaded, hooks, samples, seed, epsilon, uncontrollable)
    path = loaded.run.path / "analyses" / "probes"
    result = loaded.source | {
        "hooks": list(hooks), "samples": samples, "seed": seed, "epsilon": epsilon,
        "uncontrollable": uncontrollable,
        "scores": {name: {c: vars(score) for c, score in column.items()} for name, column in columns.items()},
    }  # fmt: skip
    write_json(path / "result.json", result)
    write_text(path / "table.md", markdown(columns, loaded))
    means = {name: _mean(column) for name, column in columns.items()}
    return loaded.source | {"table": str(path / "table.md"), "result": str(path / "result.json"), "means": means}


def _columns(
    loaded: Loaded, hooks: tuple[str, ...], samples: int, seed: int, epsilon: float, uncontrollable: bool
) -> dict[str, Column]:
    """Scores by what was probed."""
    agents = {"": loaded.agent, "random network: ": randomised(loaded.agent, seed)}
    values: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = collect_store(loaded, hooks[0], samples, Path(folder) / "store", seed, epsilon)
        number = store.column("episode")
        concepts = make_labelled(loaded.env).concepts
        labels = {name: store.column(name) for name in concepts}
        with progress_bar("Following the episodes", len(number), "decisions") as update:
            done = 0
            for episode in replay(loaded.env, store):
                for kind, agent in agents.items():
                    for hook, found in activations(agent, episode, hooks).items():
                        values.setdefault(kind + hook, []).append(found)
                values.setdefault("raw observation", []).append(_raw(loaded, episode.obs))
                done += len(episode.actions)
                update(done)
    kept = np.ones(len(number), bool)
    if not uncontrollable and "controllable" in labels:
        kept = labels["controllable"] > 0
    labels, number = {name: column[kept] for name, column in labels.items()}, number[kept]
    columns = {}
    with progress_bar("Probing", len(values) + 1, "layers") as update:
        for name in list(values):
            columns[name] = probe(np.concatenate(values[name])[kept], labels, concepts, number, seed)
            update(len(columns))
        columns["shuffled labels"] = probe(
            np.concatenate(values[hooks[0]])[kept], labels, concepts, number, seed, shuffles=20
        )
        update(len(columns))
    return columns


def _raw(loaded: Loaded, obs: np.ndarray) -> np.ndarray:
    """`[T, D]`: pixels as they are, symbols as zeros and ones."""
    counts = loaded.env.categories
    if counts is None:
        return obs.reshape(len(obs), -1).astype(np.float32)
    one_hot = [np.eye(count, dtype=np.float32)[obs[:, i]] for i, count in enumerate(counts)]
    return np.concatenate(one_hot, -1).reshape(len(obs), -1)


def markdown(columns: dict[str, Column], loaded: Loaded) -> str:
    """A row a concept, best scores first."""
    concepts = make_labelled(loaded.env).concepts
    names = list(columns)
    lines = [f"| concept | score | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    first = columns[names[0]]
    for concept in sorted(first, key=lambda each: -first[each].value):
        kind = "AUROC" if concepts[concept].kind == "boolean" else "R²"
        cells = [f"{s.value:.2f} {shown((s.low, s.high), '.2f')}" for s in (columns[name][concept] for name in names)]
        lines.append(f"| {concept} | {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(column: Column) -> float:
    return float(np.mean([score.value for score in column.values()])) if column else float("nan")
