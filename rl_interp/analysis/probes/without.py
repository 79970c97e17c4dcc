"""What an agent does without what a layer knows of a concept.

<run>/analyses/erasure/<hook>/  result.json  table.md  effects.png
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rl_interp.agents.load import Loaded
from rl_interp.analysis.playing import ENVS, collect_store, score
from rl_interp.analysis.probes.erasure import Eraser
from rl_interp.analysis.probes.regression import RARE, probe
from rl_interp.core.agent import Agent
from rl_interp.core.envs import make_labelled
from rl_interp.core.envs.labelled import Concept
from rl_interp.core.errors import UserError, require_numbers, unknown
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import hook_point, run_with_hooks
from rl_interp.core.interventions import Intervention, Splice, as_hooks
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.replay import Episode, replay
from rl_interp.core.stats import Estimate, bootstrap, by_group, mean, plain
from rl_interp.core.store import ActivationStore
from rl_interp.core.tables import markdown

_FEWEST = 8
"""Episodes: half of them to learn what to erase from; of the others a probe needs four."""
_EPSILON = 0.001
"""Probability of a random action in play."""
_OUT_OF_STEP = 0.1
"""Share of all steps by which a control's labels are moved against the states, at least."""


@dataclass(frozen=True)
class Settings:
    samples: int = 20_000
    """Number of steps to play, to learn from and to decide in."""
    episodes: int = 30
    """Number of whole episodes to play without each concept, and under its controls; 0 for none."""
    controls: int = 16
    """Number of directions of each concept's control, at most 16. Recorded episodes take them in turn, and so do the
    environments, of which 16 play at once."""
    seed: int = 0
    """Seed of the episodes, of what is learned from, and of the controls."""
    epsilon: float = 0.05
    """Probability of a random action in the samples."""

    def __post_init__(self) -> None:
        require_numbers(self, at_least_1=("samples", "controls"), at_least_0=("episodes", "seed"), share=("epsilon",))
        if self.controls > ENVS:
            raise UserError(f"controls={self.controls} given; at most {ENVS} play, one in each environment.")


@dataclass(frozen=True)
class Beside:
    """A figure of the concept erased, beside that of its controls."""

    erased: Estimate
    control: Estimate


@dataclass(frozen=True)
class Without:
    """What comes of erasing a concept. Decisions are those in states of episodes that nothing was learned from. A
    control moves each state as far, along directions of the same labels out of step with the states, less what the
    probe reads along them."""

    known: Estimate
    """What a probe reads of it: AUROC, or R² of a number."""
    known_after: Estimate
    """The same after it was erased, by a probe that is fitted anew."""
    remains: bool
    """Whether that is more than half of what was read, above chance: then nothing is known of what it does without."""
    left: Estimate
    """What boosted trees then still read: what is there in no linear form, and what a linear probe still reads."""
    moved: float
    """Distance that states are moved: root mean square, in that of the states from their mean."""
    changed: Beside
    """Share of an episode's states whose greedy action changes, mean over episodes."""
    changed_where: Beside | None
    """The same where the concept holds; None of a number."""
    returns: Beside | None
    """Mean return of whole episodes; None if none were played."""
    lost: Estimate | None
    """By how much the controls return more, in the same episodes."""


def play_without(
    loaded: Loaded,
    hook: str,
    concepts: Sequence[str] = (),
    settings: Settings | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Erase concepts of the ground truth from a layer, one at a time, and measure how the agent then decides and plays.
    Steps at which actions make no difference are left out of all but the play.

    Args:
        hook: hook point without positions.
        concepts: which; by default all. Those that are too rare are left out.

    Raises:
        HookError: no such hook point.
        UserError: one with positions or too wide; an environment without concepts, an unknown one, or continuous
            actions; too few samples.
    """
    settings, known = settings or Settings(), make_labelled(loaded.env).concepts
    _check(loaded, hook, concepts, known)
    with tempfile.TemporaryDirectory() as folder:
        store = collect_store(
            loaded, hook, settings.samples, Path(folder) / "store", settings.seed, settings.epsilon, progress=progress
        )
        study = _Study(loaded, hook, store, settings)
        reads = {name: study.known(name) for name in concepts or known}
        names = {name: read for name, read in reads.items() if read is not None}
        if not names:
            raise UserError(
                f"no concept is there, and is not, often enough in the {settings.samples} samples; collect more "
                "(--samples)."
            )
        if rare := [name for name in concepts if name not in names]:
            progress.warn(
                f"{', '.join(rare)}: not there often enough, or always, and left out; collect more (--samples)."
            )
        as_trained, found = study.as_trained(progress), {}
        with progress.bar("Erasing", len(names), "concepts") as update:
            for name, read in names.items():
                found[name] = study.without(name, read)
                update(len(found))
    if remaining := [name for name, each in found.items() if each.remains]:
        progress.warn(
            f"{', '.join(remaining)}: still read after erasing, in episodes that it was not learned from, so that "
            "little follows if the agent goes on as before. More --samples may help."
        )
    return _written(loaded, hook, settings, as_trained, found)


def _check(loaded: Loaded, hook: str, concepts: Sequence[str], known: Mapping[str, Concept]) -> None:
    point = hook_point(loaded.agent, hook)
    if not set(point.axes.split()) <= {"T", "B", "D"}:
        raise UserError(
            f"{hook!r} given, which has the axes {point.axes}; concepts are erased from layers without positions, such "
            "as a hidden layer or the state of a memory."
        )
    if not known:
        raise UserError(
            f"{loaded.env.id} tells nothing of its states that could be erased; import or train the agent with "
            "--env.labels, a function that does."
        )
    for name in concepts:
        if name not in known:
            raise UserError(unknown("concept", name, known))
    if loaded.agent.continuous:
        raise UserError(f"{loaded.run.path} is of an agent with continuous actions; erasing is measured on choices.")


class _Study:
    """The recorded episodes, half of them to learn from (rows `_fitted` of the store) and half to decide in
    (`_seen`)."""

    def __init__(self, loaded: Loaded, hook: str, store: ActivationStore, settings: Settings):
        self._loaded, self._hook, self._settings = loaded, hook, settings
        self._concepts = make_labelled(loaded.env).concepts
        self._labels = {name: np.asarray(store.column(name), np.float64) for name in self._concepts}
        self._values, self._episodes = store.read(np.arange(store.samples)), store.column("episode")
        acts = self._labels.get("controllable", np.ones(store.samples)) > 0
        numbers = np.random.default_rng(settings.seed).permutation(np.unique(self._episodes[acts]))
        if len(numbers) < _FEWEST:
            raise UserError(
                f"the {settings.samples} samples are of {len(numbers)} episodes in which actions make a difference; "
                f"{_FEWEST} are needed: give more --samples."
            )
        learned, seen = np.split(numbers, [len(numbers) // 2])
        self._fitted, self._seen = (np.flatnonzero(np.isin(self._episodes, each) & acts) for each in (learned, seen))
        self._played = list(replay(loaded.env, store, seen))
        self._acts = acts[np.isin(self._episodes, seen)]
        self._decided = self._decisions(None)

    def known(self, concept: str) -> Estimate | None:
        """What a probe reads of it; None where there is not enough of it on either side to learn from and to score."""
        labels = self._labels[concept][self._fitted]
        enough = np.ptp(labels) > 0
        if self._concepts[concept].kind == "boolean":
            enough = min((labels > 0).sum(), (labels <= 0).sum()) >= RARE
        return self._read(concept, self._values[self._seen]).get(concept) if enough else None

    def as_trained(self, progress: Progress) -> Estimate | None:
        returns = self._returns(None, progress)
        return bootstrap([returns], mean) if len(returns) else None

    def without(self, concept: str, known: Estimate) -> Without:
        fitted, labels = self._values[self._fitted], self._labels[concept][self._fitted]
        eraser = Eraser.of(fitted, labels, self._episodes[self._fitted])
        least, rng = int(_OUT_OF_STEP * len(labels)), np.random.default_rng(self._settings.seed)
        turns = rng.integers(least, len(labels) - least, self._settings.controls)
        control = eraser.instead(fitted, np.stack([np.roll(labels, turn) for turn in turns]))
        before = self._values[self._seen]
        after = eraser(torch.from_numpy(before)).numpy()
        far, spread = (np.square(each).sum(dtype=np.float64) for each in (after - before, before - before.mean(0)))
        changed = [self._decisions(each) != self._decided for each in (eraser, control)]
        holds = self._labels[concept][self._seen] > 0
        returns = [self._returns(each) for each in (eraser, control)]
        played = bool(self._settings.episodes)
        boolean = self._concepts[concept].kind == "boolean"
        chance = 0.5 if boolean else 0.0
        known_after = self._read(concept, after)[concept]
        return Without(
            known,
            known_after,
            _reads(known, chance) and known_after.value - chance > 0.5 * (known.value - chance),
            self._read(concept, after, trees=True)[concept],
            float(np.sqrt(far / spread)),
            self._over_episodes(changed, np.ones_like(holds)),
            self._over_episodes(changed, holds) if boolean else None,
            Beside(bootstrap([returns[0]], mean), self._over_directions(returns[1])) if played else None,
            self._over_directions(returns[1] - returns[0]) if played else None,
        )

    def _returns(self, eraser: Eraser | None, progress: Progress = SILENT) -> NDArray[np.float64]:
        """Of whole episodes, of which each environment plays some; they begin alike whatever is erased."""
        if not self._settings.episodes:
            return np.zeros(0)
        seed, interventions = self._settings.seed + 1000, self._interventions(eraser)
        return score(self._loaded, self._settings.episodes, seed, _EPSILON, progress, interventions).returns

    def _over_directions(self, of_episodes: NDArray[np.float64]) -> Estimate:
        """Of controls: all episodes of an environment have the same direction, and the interval is over directions."""
        envs = min(len(of_episodes), ENVS)
        parts = np.array_split(np.arange(len(of_episodes)), envs)  # as `rollout.evaluate` shares them
        env = np.concatenate([np.full(len(part), number) for number, part in enumerate(parts)])
        return bootstrap([by_group(of_episodes, env % self._settings.controls)], mean)

    def _decisions(self, eraser: Eraser | None) -> NDArray[np.int64]:
        """Greedy actions in the states that are decided in."""
        parts = [
            _greedy(self._loaded.agent, each, self._interventions(eraser and eraser.alone(number)))
            for number, each in enumerate(self._played)
        ]
        return np.concatenate(parts)[self._acts]

    def _interventions(self, eraser: Eraser | None) -> list[Intervention]:
        return [] if eraser is None else [Splice(self._hook, reconstruct=eraser, label="erase")]

    def _read(self, concept: str, values: NDArray[np.floating], trees: bool = False) -> dict[str, Estimate]:
        """By a probe that learns from some of these episodes; nothing if it is too rare."""
        labels = {concept: self._labels[concept][self._seen]}
        kinds = {concept: self._concepts[concept]}
        return probe(values, labels, kinds, self._episodes[self._seen], self._settings.seed, trees=trees)

    def _over_episodes(self, changed: Sequence[NDArray[np.bool_]], where: NDArray[np.bool_]) -> Beside:
        episodes = self._episodes[self._seen][where]
        return Beside(*(bootstrap([by_group(each[where].astype(float), episodes)], mean) for each in changed))


def _reads(probe: Estimate, chance: float) -> bool:
    """Whether a probe reads anything at all."""
    return (probe.value if probe.low is None else probe.low) > chance


@torch.no_grad()
def _greedy(agent: Agent, episode: Episode, interventions: Sequence[Intervention]) -> NDArray[np.int64]:
    """`[T]`: what the agent would do as it follows an episode."""
    obs = torch.from_numpy(episode.obs)[:, None].to(agent.device)
    actions = torch.from_numpy(episode.actions)[:, None].to(agent.device)
    state = agent.reseeded(agent.initial_state(1), np.random.default_rng(episode.number))
    out = run_with_hooks(agent, obs, state, hooks=as_hooks(interventions), actions=actions, unroll=True)
    return out.preferences[:, 0].argmax(-1).cpu().numpy()


def _written(
    loaded: Loaded, hook: str, settings: Settings, as_trained: Estimate | None, found: Mapping[str, Without]
) -> dict[str, Any]:
    folder = loaded.run.outputs / "analyses" / "erasure" / hook
    known = make_labelled(loaded.env).concepts
    rows = {name: _plain(each) for name, each in found.items()}
    result = loaded.source | {
        "hook": hook, **vars(settings),
        "as_trained": None if as_trained is None else _plain(as_trained), "by_concept": rows,
    }  # fmt: skip
    write_json(folder / "result.json", result)
    write_text(folder / "table.md", _table(found, as_trained, {name: known[name].kind for name in found}))
    _draw(found, as_trained, folder / "effects.png", f"{loaded.run.path.name}, {hook}")
    paths = {"table": "table.md", "plot": "effects.png", "result": "result.json"}
    shown = {key: result[key] for key in ("hook", "as_trained", "by_concept")}
    return loaded.source | shown | {name: str(folder / file) for name, file in paths.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Estimate):
        return {"value": value.value, "interval": plain(value)}
    if isinstance(value, Without | Beside):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return value


def _table(found: Mapping[str, Without], as_trained: Estimate | None, kinds: Mapping[str, str]) -> str:
    """A row a concept, those that cost most first, in Markdown."""
    head = [
        "concept", "score", "read", "after", "by trees", "moved",
        "decisions changed", "control", "where it holds", "control",
    ]  # fmt: skip
    if as_trained is not None:
        head += [f"return ({as_trained.value:,.4g} as trained)", "control", "control − erased"]
    rows = []
    for name in _ordered(found):
        each = found[name]
        of = [each.changed.erased, each.changed.control]
        where = [each.changed_where.erased, each.changed_where.control] if each.changed_where else [None, None]
        played = [each.returns.erased, each.returns.control, each.lost] if each.returns else []
        rows.append(
            [
                name, "AUROC" if kinds[name] == "boolean" else "R²", each.known.shown(".2f"),
                f"{each.known_after.value:.2f}{' (remains)' if each.remains else ''}",
                f"{each.left.value:.2f}", f"{each.moved:.0%}",
                *("" if share is None else share.shown(".1%") for share in (*of, *where)),
                *("" if score is None else score.shown(",.4g") for score in played),
            ]
        )  # fmt: skip
    return markdown(head, rows)


def _ordered(found: Mapping[str, Without]) -> list[str]:
    def cost(name: str) -> float:
        each = found[name]
        return each.lost.value if each.lost else each.changed.erased.value - each.changed.control.value

    return sorted(found, key=cost, reverse=True)


def _draw(found: Mapping[str, Without], as_trained: Estimate | None, path: Path, title: str) -> None:
    """What is read before and after, the decisions that change, and the returns, a line for each concept."""
    names = _ordered(found)[::-1]
    panels = 2 if as_trained is None else 3
    figure, axes = new_figure(1, panels, 4 + 3.2 * panels, 1.6 + 0.3 * len(names), sharey=True)
    places = np.arange(len(names))
    rows = [found[name] for name in names]
    pairs = {
        "read by a probe (AUROC or R²)": [(each.known, each.known_after, each.left) for each in rows],
        "decisions that change\n(where it holds, if it is yes or no)": [
            ((each.changed_where or each.changed).erased, (each.changed_where or each.changed).control) for each in rows
        ],
        "mean return": [(each.returns.erased, each.returns.control) for each in rows if each.returns],
    }
    series = [{"in the layer": "C2", "erased": "C3", "then by trees": "C1"}, *[{"erased": "C3", "control": "0.5"}] * 2]
    for axis, (name, of), shown in zip(axes[0], pairs.items(), series, strict=False):
        for number, (label, colour) in enumerate(shown.items()):
            estimates = [each[number] for each in of]
            axis.errorbar(
                [each.value for each in estimates], places + 0.15 * (1 - number if len(shown) > 2 else 1 - 2 * number),
                xerr=_bars(estimates), fmt="o", markersize=4, color=colour, label=label,
            )  # fmt: skip
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3, axis="x")
        axis.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, -0.02), ncols=3, framealpha=0.6)
    axes[0, 0].set_yticks(places, names)
    axes[0, 0].set_ylim(-1.4, len(names) - 0.4)
    axes[0, 0].axvline(0.5, color="0.5", linestyle=":", linewidth=1)
    if as_trained is not None:
        axes[0, 2].axvline(as_trained.value, color="C2", linestyle="--", linewidth=1)
        if as_trained.interval is not None:
            axes[0, 2].axvspan(*as_trained.interval, color="C2", alpha=0.12)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def _bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths below and above; nothing where there is no interval."""
    ends = [each.interval or (each.value, each.value) for each in estimates]
    low, high = ([abs(end[i] - each.value) for end, each in zip(ends, estimates, strict=True)] for i in (0, 1))
    return [low, high]
