"""Breaking an agent's habit by cutting edges, beside other ways to break it."""

import time
from collections.abc import Sequence
from typing import Any

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.habits import Scored, habit
from rl_interp.analysis.circuits.stored import Stored, circuit_path, save_circuit
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.breaking import Bad, BreakingConfig, break_behaviour, fine_tuned, pruned_units
from rl_interp.circuits.discovery.discovery import Discovery
from rl_interp.circuits.judging import redrawn
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Circuit, counted, run_masked
from rl_interp.circuits.replacement import CONSTANT
from rl_interp.core.agent import Agent
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json, write_text
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import Estimate, bootstrap, mean
from rl_interp.core.tables import markdown

_HELD_OUT = 1_000_000
"""Seeds of the episodes that are scored begin here, far from those of the states that are learned from."""
_DRAWS, _EACH = 10, 8
"""Random cuts that are judged, fewer where an episode for each `_EACH` would not be left."""
CONDITIONS = ("before", "after", "random_cut", "pruned_units", "fine_tuned")


def break_run(
    loaded: Loaded, name: str, config: BreakingConfig, states: int = 30, episodes: int = 400, replace: str = "mean",
    progress: Progress = SILENT,
) -> dict[str, Any]:  # fmt: skip
    """Learn which edges to cut on a few states, and play whole held-out episodes: as trained, with the edges cut, with
    as many random ones of each link cut, with whole units cut, and with all weights trained on the same states.
    Intervals are over episodes, but for the random ones over draws, each of which plays its share of the episodes.

    Args:
        name: of a habit: `corner`, `CONCEPT:ACTION`, or of transformers `right` or `CONCEPT:right`.
        states: bad ones to learn from.
        replace: what is put in place of what cut edges carry; see `circuits.replacement`.

    Raises:
        UserError: no such habit, or an agent that lacks it.
    """
    start = time.perf_counter()
    if replace not in CONSTANT:
        raise UserError(
            f"replace={replace!r} given; at play it must be the same in all states: give one of {', '.join(CONSTANT)}."
        )
    sought = habit(loaded, name)
    found = sought.shown(states, config.seed, progress)
    with counted() as passes:
        good = Behaviour.of(loaded.agent, found.good, replace, seed=config.seed)
        there = Behaviour.of(
            loaded.agent, found.bad, replace, bank=found.good, graph=good.graph, distance=good.distance,
            seed=config.seed,
        )  # fmt: skip
        bad = Bad(there, found.actions)
        broken = break_behaviour(bad, good, config, progress)
    mask = broken.mask
    good, there = (each.with_reference(broken.reference) for each in (good, there))
    bad = Bad(there, found.actions)
    reached = float(bad.loss(there.decisions(mask).detach()).mean())
    units = pruned_units(bad, good, config, reached)
    whole = Mask.full(mask.graph)
    cuts = {"before": whole, "after": mask, "pruned_units": units}
    random = [redrawn(mask, config.seed + i) for i in range(max(1, min(_DRAWS, episodes // _EACH)))]

    def played(agent: Agent, cut: Mask, share: int = 1, number: int = 0) -> Scored:
        interventions = [] if cut is whole else [Circuit(mask=cut, reference=good.reference, label="cut")]
        seed = _HELD_OUT + config.seed + number * (episodes // share)
        return sought.scored(agent, episodes // share, seed, interventions, progress)

    scores = {condition: played(loaded.agent, cut) for condition, cut in cuts.items()}
    scores["random_cut"] = _over_draws([played(loaded.agent, cut, len(random), i) for i, cut in enumerate(random)])
    tuned = fine_tuned(bad, good, config, reached)
    scores["fine_tuned"] = played(tuned, whole)
    by_tuned = run_masked(tuned, whole, there.states.obs, there.states.memory or None).preferences.detach()
    in_states = {name: float(bad.share(there.decisions(cut).detach()).mean()) for name, cut in cuts.items()} | {
        "random_cut": mean([bad.share(there.decisions(cut).detach()).mean() for cut in random]),
        "fine_tuned": float(bad.share(by_tuned).mean()),
    }
    result = loaded.source | {
        "habit": name, "bad_is": sought.bad_is, "good_is": sought.good_is, "replace": replace, "states": states,
        "edges_cut": mask.graph.edges - mask.kept, "edges_total": mask.graph.edges,
        "edges_cut_by_link": _by_link(mask),
        "edges_of_pruned_units": mask.graph.edges - units.kept,
        "bad": {each: vars(scores[each].bad) for each in CONDITIONS},
        "good": {each: vars(scores[each].good) for each in CONDITIONS},
        "bad_in_states": {each: in_states[each] for each in CONDITIONS},
        "forwards": passes.forward, "backwards": passes.backward, "seconds": time.perf_counter() - start,
    }  # fmt: skip
    label = f"break-{name.replace(':', '-')}"
    scores_of_edges = Discovery("break", mask.graph, mask.vector, good.reference, mask)
    kept = circuit_path(loaded, label)
    save_circuit(kept, Stored(loaded, scores_of_edges, mask, good.reference, config), result)
    folder = loaded.run.outputs / "analyses" / label
    write_json(folder / "result.json", result)
    write_text(folder / "table.md", _table(result))
    files = {"table": folder / "table.md", "result": folder / "result.json", "circuit": kept}
    return result | {each: str(path) for each, path in files.items()}


def _over_draws(scores: Sequence[Scored]) -> Scored:
    """The mean of random cuts, with its interval over them."""
    return Scored(*(bootstrap([[getattr(each, side).value for each in scores]], mean) for side in ("bad", "good")))


def _by_link(mask: Mask) -> dict[str, int]:
    """How many edges are cut, of the links in which some are."""
    cut = {name: int((values == 0).sum()) for name, values in mask.values.items()}
    return {name: count for name, count in cut.items() if count}


def _table(result: dict[str, Any]) -> str:
    rows = [
        [
            condition.replace("_", " "), f"{result['bad_in_states'][condition]:.3f}",
            *(Estimate(**result[side][condition]).shown(".3f") for side in ("bad", "good")),
        ]
        for condition in CONDITIONS
    ]  # fmt: skip
    head = f"{result['edges_cut']} of {result['edges_total']} edges cut."
    return f"{head}\n\n{markdown(['agent', 'P(bad) where it was learned', result['bad_is'], result['good_is']], rows)}"
