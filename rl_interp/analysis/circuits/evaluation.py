"""Judging a stored circuit of a run's agent: on states of other episodes, against random circuits, and at play."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, get_args

import numpy as np

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.discovery import DiscoverConfig, behaviour_of, find, settings_of, states_of
from rl_interp.analysis.circuits.stored import StoredCircuit, circuit_path, read_circuit
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.discovery import measured
from rl_interp.circuits.judging import (
    FRACTIONS,
    compared,
    complement,
    curve,
    jaccard,
    leaving_out,
    shared_share,
    shuffled,
)
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.replacement import Kind
from rl_interp.circuits.states import States
from rl_interp.core.envs import TextConfig, make_vector
from rl_interp.core.errors import UserError, require_numbers, unknown
from rl_interp.core.files import write_json
from rl_interp.core.interventions import Intervention
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import evaluate
from rl_interp.core.stats import bootstrap, mean

_ENVS = 16
NEEDED = 0.001
"""An edge is needed if the distance rises by this share of the distance without any when it is left out."""


@dataclass(frozen=True)
class EvaluateConfig:
    """What a circuit is judged by."""

    states: int = 256
    """Number of states, of episodes that the circuit was not found on."""
    left_out: int = 100
    """Number of edges that are left out, each alone; 0 for none."""
    random: int = 10
    """Number of random circuits of the same wiring."""
    again: int = 2
    """How often the circuit is looked for again, on other states, and how often with each other replacement; 0 for
    never."""
    kinds: tuple[Kind, ...] = ("zero", "mean", "resample")
    """Replacements with which it is looked for again."""
    episodes: int = 30
    """Number of whole episodes to play with the circuit alone, without it, with random circuits and as trained; 0 for
    none. Counterfactual circuits of texts are judged by faithfulness alone."""
    seed: int = 1_000_000
    """Seed of the states, the random circuits and the episodes."""

    def __post_init__(self) -> None:
        require_numbers(
            self, at_least_1=("states", "random"), at_least_0=("left_out", "again", "episodes"), seed=("seed",)
        )
        for kind in self.kinds:
            if kind not in get_args(Kind):
                raise UserError(unknown("kind of replacement", kind, get_args(Kind)))


def evaluate_circuit(
    loaded: Loaded, circuit: str, config: EvaluateConfig = EvaluateConfig(), progress: Progress = SILENT
) -> dict[str, Any]:
    """Judge a circuit of a run, and write the result beside it.

    Raises:
        RunError: no such circuit.
        UserError: it is of another agent.
    """
    stored = read_circuit(loaded, circuit)
    loaded = stored.loaded
    settings = replace(settings_of(stored), states=config.states)
    with measured() as cost:
        here = behaviour_of(loaded, settings, config.seed, progress)
        behaviour = here.with_constants(stored.reference)
        # Optimal constants are fitted to a circuit of one size.
        at_sizes = here if settings.replace == "optimal" else behaviour
        with progress.bar("Judging", 3, "parts") as update:
            result = _on_states(behaviour, at_sizes, stored, config)
            update(1)
            result["minimality"] = _minimality(behaviour, stored.mask, config)
            update(2)
            result["stability"] = _stability(loaded, settings, stored, config)
            update(3)
    result |= {"forwards": cost.forwards, "seconds": cost.seconds}
    if config.episodes and not _says_nothing_at_play(loaded, settings):
        result["returns"] = play(loaded, stored, config, progress)
    result = loaded.source | {"circuit": stored.name, "edges": stored.mask.kept} | result
    path = circuit_path(loaded, circuit)
    write_json(path.parent / f"{path.name}-evaluation.json", result)
    return result | {"result": str(path.parent / f"{path.name}-evaluation.json")}


def _says_nothing_at_play(loaded: Loaded, settings: DiscoverConfig) -> bool:
    """Whether cut edges would carry what they do in the twin of another prompt."""
    return isinstance(loaded.env, TextConfig) and settings.replace == "counterfactual"


def _on_states(
    behaviour: Behaviour, at_sizes: Behaviour, stored: StoredCircuit, config: EvaluateConfig
) -> dict[str, Any]:
    """Faithfulness of anything is by the distance without any edge, with the same in the place of what is cut."""
    nothing, mask = behaviour.require(), stored.mask
    found, without = compared(behaviour, mask), compared(behaviour, complement(mask))
    random = [shuffled(mask, config.seed + i) for i in range(config.random)]
    others = [compared(behaviour, each).kl for each in random]
    sizes = curve(at_sizes, stored.scores, FRACTIONS)
    return {
        "candidates": mask.graph.edges,
        "cpr": sizes.cpr, "cpr_log": sizes.cpr_log, "cmd": sizes.cmd, "cmd_log": sizes.cmd_log,
        "curve": asdict(sizes),
        "faithfulness": 1 - found.kl / nothing,
        "faithfulness_without": 1 - without.kl / nothing,
        "faithfulness_random": vars(bootstrap([1 - np.array(others) / nothing], mean)),
        "edges_in_random": float(np.mean([shared_share(mask, each) for each in random])),
        **asdict(found),
        "action_agreement_without": without.action_agreement,
    }  # fmt: skip


def _minimality(behaviour: Behaviour, mask: Mask, config: EvaluateConfig) -> dict[str, Any] | None:
    if not config.left_out:
        return None
    rises = leaving_out(behaviour, mask, config.left_out, config.seed) / behaviour.require()
    return {
        "edges": len(rises),
        "needed": float((rises > NEEDED).double().mean()),
        "median_rise": float(rises.median()),
    }


def _stability(
    loaded: Loaded, settings: DiscoverConfig, stored: StoredCircuit, config: EvaluateConfig
) -> dict[str, Any] | None:
    """How much circuits of the same method and size share: found on other states, and with other replacements."""
    if not config.again:
        return None
    wanted = int(stored.described["result"]["chosen"])

    @cache
    def states_with(seed: int, counterfactuals: bool) -> States:
        return states_of(loaded, replace(settings, replace="counterfactual") if counterfactuals else settings, seed)

    def again(kind: Kind, seed: int) -> Mask:
        states = states_with(seed, kind == "counterfactual")
        behaviour = Behaviour.of(loaded.agent, states, kind, seed=seed)
        return find(behaviour, replace(settings, replace=kind)).circuit(wanted)

    first = again(settings.replace, settings.seed)
    states = [jaccard(first, again(settings.replace, config.seed + 1000 * (i + 1))) for i in range(config.again)]
    kinds = {kind: jaccard(first, again(kind, settings.seed)) for kind in config.kinds if kind != settings.replace}
    return {
        "states": {"jaccard": float(np.mean([s for s, _ in states])), "chance": float(np.mean([c for _, c in states]))},
        "kinds": {kind: {"jaccard": shared, "chance": chance} for kind, (shared, chance) in kinds.items()},
    }


def play(loaded: Loaded, stored: StoredCircuit, config: EvaluateConfig, progress: Progress = SILENT) -> dict[str, Any]:
    """Mean returns of whole episodes with intervals: as trained, with the circuit alone, with all but the circuit, with
    random circuits of its wiring, and with every edge cut. Episodes of equal numbers begin alike and have the same
    random numbers, but for the random circuits, of which each plays its share of the episodes: it is they that are
    drawn, so their interval is over the circuits' mean returns."""
    mask = stored.mask
    conditions: dict[str, Sequence[Sequence[Intervention]]] = {
        "agent": [()],
        "circuit": [[stored.intervention()]],
        "without": [[stored.intervention(complement(mask), "without")]],
        "random": [
            [stored.intervention(shuffled(mask, config.seed + i), "random")]
            for i in range(min(config.random, config.episodes))
        ],
        "nothing": [[stored.intervention(Mask.full(mask.graph, 0.0), "nothing")]],
    }
    found = {}
    with progress.bar("Playing", len(conditions) * config.episodes, "episodes") as update:
        for done, (name, ways) in enumerate(conditions.items()):
            share, returns = config.episodes // len(ways), []
            for i, way in enumerate(ways):
                count = share + (i < config.episodes % len(ways))
                env, seed = make_vector(loaded.env, min(count, _ENVS)), config.seed + i * share
                returns.append(evaluate(loaded.agent, env, count, seed=seed, interventions=way).returns)
                env.close()
            sampled = returns[0] if len(ways) == 1 else np.array([each.mean() for each in returns])
            found[name] = vars(bootstrap([sampled], mean))
            update((done + 1) * config.episodes)
    return found
