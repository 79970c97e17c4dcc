"""Saliency methods tested on an agent, beside maps that know nothing of it: `rl-interp saliency evaluate`.

Three questions, each with an interval over episodes: does the agent's answer hang on what a map calls important
(deletion and insertion, over several substrates); does the map change when what the agent has learned is taken away
(randomisation); and does the thing that it calls important change action and value more, when the game itself is
edited, than the thing that it calls unimportant (counterfactuals)?
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.saliency_states import Seen, draw_states
from rl_interp.analysis.saliency_table import sentence, table
from rl_interp.core.agent import Agent, evaluating
from rl_interp.core.errors import UserError, at_least_one, unknown
from rl_interp.core.files import write_json, write_text
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import FEWEST, Estimate, bootstrap, by_group, mean
from rl_interp.saliency import METHODS, Entities, Perturbation, Scene, Target, parse_target, saliency_map
from rl_interp.saliency.evaluation.controls import CONTROLS
from rl_interp.saliency.evaluation.deletion import by_square, changes, ranks
from rl_interp.saliency.evaluation.randomisation import cascade, similarity

OTHERS = 3
"""States that an entity is exchanged with."""
RANDOMISED = 10
"""States whose maps are compared with those of agents with shuffled layers, of as many episodes as there are."""
STAGES = 3
"""Stages of shuffling."""
Maps = dict[str, NDArray[np.float32]]
"""By method or control, `[N, H, W]`."""


@dataclass
class Scores:
    """What each map of each state scored, NaN where a test does not apply."""

    episodes: NDArray[np.int64]
    """`[N]`."""
    by_test: dict[tuple[str, ...], dict[str, NDArray[np.float64]]] = field(default_factory=dict)
    """Test, such as `("deletion", "black")`, to method or control, to `[N]`."""

    def estimate(self, test: tuple[str, ...], name: str) -> Estimate | None:
        """The mean over episodes of the means over their states, with its interval over episodes."""
        values = by_group(self.by_test[test][name], self.episodes)
        return bootstrap([values], mean) if len(values) else None

    def beats(self, test: tuple[str, ...], name: str, control: str) -> bool:
        """Whether it is better than a control on the same states, by an interval over episodes."""
        sign = -1 if test[0] == "insertion" else 1
        values = by_group(sign * (self.by_test[test][name] - self.by_test[test][control]), self.episodes)
        return len(values) >= FEWEST and (bootstrap([values], mean).low or 0.0) > 0


def evaluate_saliency(
    loaded: Loaded,
    methods: Sequence[str] = (),
    target: str = "advantage",
    episodes: int = 20,
    states: int = 200,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Test methods on states of an agent's episodes. Writes a table and the result to the run's analyses/, and returns
    the result with their paths.

    Args:
        methods: names of `METHODS`, and `entities`; by default all that the agent admits.
        states: in all, spread evenly over the episodes.

    Raises:
        UserError: an unknown method or target, one of the named methods that the agent does not admit, observations
            that have no places, or no states.
    """
    at_least_one(episodes=episodes, states=states)
    known = [*METHODS, "entities"]
    if wrong := [name for name in methods if name not in known]:
        raise UserError(unknown("saliency method", wrong[0], known))
    if loaded.env.observation_kind == "vector":
        raise UserError(f"{loaded.env.id} shows vectors, in which nothing has a place; give one that shows pictures.")
    explained = parse_target(target, loaded.env.action_names)
    seen = draw_states(loaded, episodes, states, seed, progress)
    states_of = _States(loaded, seen, explained)
    maps, seconds, refused = states_of.maps(methods or known, bool(methods), progress)
    controls = {name: control(states_of.obs, states_of.before, seed) for name, control in CONTROLS.items()}
    scores = Scores(np.array([each.episode for each in seen]))
    states_of.deletions(maps | controls, scores, progress)
    states_of.counterfactuals(maps | controls, scores)
    _agreements(maps, controls, scores)
    shuffled = states_of.randomised(maps, seed, progress)
    result = loaded.source | _result(scores, maps, controls, shuffled) | {
        "target": target, "episodes": episodes, "states": len(seen), "seed": seed, "refused": refused,
        "seconds_per_map": seconds,
    }  # fmt: skip
    result["best"] = best_for_films(result["beats_all_controls_in"])
    result["sentence"] = sentence(result, loaded.run.path.name)
    folder = loaded.run.outputs / "analyses" / f"saliency-evaluation-{target.replace(':', '-')}"
    write_text(folder / "table.md", table(result))
    write_json(folder / "result.json", result)
    return result | {"table": str(folder / "table.md"), "result": str(folder / "result.json")}


class _States:
    """Some states of an agent's, and what is asked of maps of them."""

    def __init__(self, loaded: Loaded, seen: Sequence[Seen], target: Target):
        self.agent, self.seen, self.target = loaded.agent, seen, target
        device = loaded.agent.device
        self.obs = torch.from_numpy(np.stack([each.obs for each in seen])).to(device)
        self.before = torch.from_numpy(np.stack([each.before for each in seen])).to(device)

    def maps(
        self, methods: Sequence[str], named: bool, progress: Progress
    ) -> tuple[Maps, dict[str, float], dict[str, str]]:
        """Of every method that the agent admits; seconds a map; and why others were refused, or left out because their
        maps are another's, as those of blurs are of symbols, and would count it twice."""
        found: Maps = {}
        seconds: dict[str, float] = {}
        refused: dict[str, str] = {}
        with progress.bar("Mapping", len(methods) * len(self.seen), "maps") as update:
            for number, method in enumerate(methods):
                start, drawn = time.perf_counter(), []
                try:
                    for i in range(len(self.seen)):
                        drawn.append(self._map(self.agent, method, i))
                        update(number * len(self.seen) + i + 1)
                except UserError as error:
                    if named:
                        raise
                    refused[method] = str(error)
                    continue
                made = np.stack(drawn)
                if same := [name for name, other in found.items() if _are_same(made, other)]:
                    refused[method] = f"its maps are those of {same[0]} here, which stands for both."
                    continue
                found[method] = made
                seconds[method] = (time.perf_counter() - start) / len(drawn)
        return found, seconds, refused

    def _map(self, agent: Agent, method: str, i: int) -> NDArray[np.float32]:
        entities = self._entities(i) if method == "entities" else None
        return saliency_map(agent, self.obs[i : i + 1], self.target, method, self.seen[i].state, entities=entities)[0]

    def _entities(self, i: int) -> Entities | None:
        own = self.seen[i].scene
        if own is None:
            return None
        return Entities([own], [self._scene(j) for j in self._elsewhere(i, OTHERS)])

    def _scene(self, i: int) -> Scene:
        scene = self.seen[i].scene
        assert scene is not None
        return scene

    def _elsewhere(self, i: int, count: int) -> list[int]:
        """States of other episodes, as far as there are some."""
        other = [j for j, each in enumerate(self.seen) if each.episode != self.seen[i].episode] or [i]
        return [other[(i * 7 + k * max(1, len(other) // count)) % len(other)] for k in range(count)]

    def substrates(self) -> dict[str, Callable[[int], Tensor]]:
        """What takes the place of what is deleted, for each state."""

        def another(i: int) -> Tensor:
            j = self._elsewhere(i, 1)[0]
            return self.obs[j : j + 1]

        if self.agent.observation == "symbols":
            usual = torch.mode(self.obs, 0).values[None]
            return {
                "unseen": lambda i: torch.zeros_like(self.obs[:1]), "usual": lambda i: usual, "another state": another,
            }  # fmt: skip
        return {
            "black": lambda i: torch.zeros_like(self.obs[:1]),
            "blur": lambda i: Perturbation().blur(self.obs[i : i + 1].float()),
            "another state": another,
        }

    def deletions(self, maps: Maps, scores: Scores, progress: Progress) -> None:
        """In units of what the substrate alone changes, on average."""
        ranked = np.stack([ranks(each) for each in maps.values()], 1)
        substrates = self.substrates()
        with progress.bar("Deleting and inserting", len(substrates) * len(self.seen), "states") as update:
            for number, (name, substrate) in enumerate(substrates.items()):
                found = []
                for i, each in enumerate(self.seen):
                    found.append(
                        changes(self.agent, self.obs[i : i + 1], self.target, each.state, ranked[i], substrate(i))
                    )
                    update(number * len(self.seen) + i + 1)
                whole = max(float(np.mean([alone for _, _, alone in found])), 1e-12)
                for test, column in (("deletion", 0), ("insertion", 1)):
                    values = np.stack([each[column] for each in found]) / whole
                    scores.by_test[test, name] = {method: values[:, m] for m, method in enumerate(maps)}

    @torch.no_grad()
    def counterfactuals(self, maps: Maps, scores: Scores) -> None:
        """1 where the entity that a map weighs most changes the agent more than the one that it weighs least, when the
        game is edited; 0 where less; a half where there is no difference."""
        for test in ("action", "value"):
            scores.by_test["counterfactual", test] = {name: np.full(len(self.seen), np.nan) for name in maps}
        for i, each in enumerate(self.seen):
            scene, names = each.scene, list(each.edited)
            if scene is None:
                return
            names = [name for name in names if name in scene.masks]
            if len(names) < 2:
                continue
            effects = self._effects(i, [each.edited[name] for name in names])
            for method, drawn in maps.items():
                weights = np.array([np.abs(drawn[i][scene.masks[name][-1]]).mean() for name in names])
                most, least = weights.argmax(), weights.argmin()
                for test, changed in effects.items():
                    same = weights[most] == weights[least] or changed[most] == changed[least]
                    score = 0.5 if same else float(changed[most] > changed[least])
                    scores.by_test["counterfactual", test][method][i] = score

    def _effects(self, i: int, edited: Sequence[NDArray[Any]]) -> dict[str, NDArray[np.float64]]:
        """How far each edit moves the preferences, less their mean, and the value."""
        found: dict[str, list[float]] = {}
        with evaluating(self.agent):
            before = self.agent.step(self.obs[i : i + 1], self.seen[i].state)
            for obs in edited:
                after = self.agent.step(torch.from_numpy(obs[None]).to(self.obs.device), self.seen[i].state)
                change = (after.preferences - before.preferences).nan_to_num()
                found.setdefault("action", []).append(float((change - change.mean()).norm()))
                if after.value is not None or after.q_values is not None:
                    found.setdefault("value", []).append(float((after.state_value - before.state_value).abs()))
        return {test: np.array(values) for test, values in found.items()}

    def randomised(self, maps: Maps, seed: int, progress: Progress) -> dict[str, dict[str, Any]]:
        """By method, similarity of its maps to those of the agent with more and more layers shuffled, from the last;
        means over states, and at the end over episodes, with their interval."""
        some = np.linspace(0, len(self.seen) - 1, min(RANDOMISED, len(self.seen))).round().astype(int)
        episodes = np.array([self.seen[i].episode for i in some])
        found: dict[str, dict[str, Any]] = {name: {"shares": [], "similarity": []} for name in maps}
        last: dict[str, NDArray[np.float64]] = {}
        with progress.bar("Shuffling layers", 1, "agent") as update:
            for share, agent in cascade(self.agent, STAGES, seed):
                for name in maps:
                    alike = np.array([similarity(maps[name][i], self._map(agent, name, int(i))) for i in some])
                    found[name]["shares"].append(share)
                    found[name]["similarity"].append(_or_none(_finite_mean(alike)))
                    last[name] = by_group(alike, episodes)
                update(share)
        return {
            name: each | _plain(bootstrap([last[name]], mean) if len(last[name]) else None)
            for name, each in found.items()
        }


def best_for_films(wins: Mapping[str, Sequence[str]]) -> str | None:
    """The method that wins most tests, of those that a film takes; None where none wins any."""
    won = {name: len(tests) for name, tests in wins.items() if tests and name in METHODS}
    return max(won, key=lambda name: won[name], default=None)


def _are_same(maps: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    """But for rounding."""
    return np.allclose(maps, others, rtol=0, atol=1e-5 * float(np.abs(others).max()))


def _agreements(maps: Maps, controls: Maps, scores: Scores) -> None:
    """Mean rank correlation with the maps of the other methods, in squares."""
    placed = {name: by_square(each).reshape(len(each), -1) for name, each in (maps | controls).items()}
    found = {}
    for name, mine in placed.items():
        others = [placed[other] for other in maps if other != name]
        found[name] = np.array(
            [_finite_mean([similarity(mine[i], other[i]) for other in others]) for i in range(len(mine))]
        )
    scores.by_test["agreement",] = found


def _finite_mean(values: ArrayLike) -> float:
    """NaN where there is none."""
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else np.nan


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _result(scores: Scores, maps: Maps, controls: Maps, shuffled: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    judged = [test for test in scores.by_test if test[0] in ("deletion", "insertion")]
    others = [
        test for test in scores.by_test if test[0] == "counterfactual" and scores.estimate(test, next(iter(controls)))
    ]
    wins = {
        name: [" ".join(test) for test in judged + others if all(scores.beats(test, name, c) for c in controls)]
        for name in maps
    }
    return {
        "methods": {name: _row(scores, name) | {"randomisation": shuffled[name]} for name in maps},
        "controls": {name: _row(scores, name) for name in controls},
        "beats_all_controls": [name for name in maps if all(" ".join(test) in wins[name] for test in judged)],
        "beats_all_controls_in": wins,
        "tests": [" ".join(test) for test in judged + others],
        "substrates_agree": {kind: _substrates_agree(scores, kind) for kind in ("deletion", "insertion")},
    }


def _row(scores: Scores, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for test in scores.by_test:
        estimate = _plain(scores.estimate(test, name))
        if len(test) == 1:
            row[test[0]] = estimate
        else:
            row.setdefault(test[0], {})[test[1]] = estimate
    return row


def _substrates_agree(scores: Scores, kind: str) -> float | None:
    """Mean over pairs of substrates of the rank correlation of all maps' scores."""
    columns = [
        [estimate.value for name in named if (estimate := scores.estimate(test, name))]
        for test, named in scores.by_test.items()
        if test[0] == kind
    ]
    pairs = [similarity(np.array(a), np.array(b)) for a, b in itertools.combinations(columns, 2)]
    return _or_none(_finite_mean(pairs))


def _plain(estimate: Estimate | None) -> dict[str, Any]:
    return {"value": None, "interval": None} if estimate is None else {
        "value": estimate.value, "interval": list(estimate.interval) if estimate.interval else None,
    }  # fmt: skip
