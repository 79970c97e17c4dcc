"""Finding the circuit of a behaviour of a run's agent, and keeping it under the run."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.picture import circuit_picture
from rl_interp.analysis.circuits.states import play_states
from rl_interp.analysis.circuits.stored import Stored, StoredCircuit, circuit_path, free_name, save_circuit
from rl_interp.analysis.mazes.choices import at_decision_square, draw_mazes
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.acdc import ACDCConfig, acdc
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.constants import ConstantsConfig, fit_constants
from rl_interp.circuits.discovery.discovery import Discovery, Report
from rl_interp.circuits.discovery.rl.method import PruningConfig, prune
from rl_interp.circuits.discovery.ugs import UGSConfig, ugs
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.replacement import Kind
from rl_interp.circuits.states import States
from rl_interp.core.config import from_plain
from rl_interp.core.envs.maze import MazeConfig
from rl_interp.core.errors import UserError, require_numbers, unknown
from rl_interp.core.progress import SILENT, Progress

Method = Literal["acdc", "eap", "eap-ig", "ugs", "rl"]
_GROWTH = 1.25
"""Each size that is tried is so many times the last."""


@dataclass(frozen=True)
class DiscoverConfig:
    """What is looked for, and how."""

    method: Method = "eap-ig"
    """The method of discovery."""
    replace: Kind = "mean"
    """What is put in the place of what an edge carries when it is cut; `optimal` constants are fitted to the
    circuit."""
    when: str | None = None
    """A concept of the environment that holds in the states of the behaviour, or "not CONCEPT"; by default all states
    are."""
    states: int = 256
    """Number of states to find it on; as many others, of other episodes, say how faithful it is."""
    change: Literal["moved", "removed", "recoloured", "corrupted", "history"] = "moved"
    """What is changed in a counterfactual, for the replacement of that name; of texts, corrupted for the twin."""
    edges: int | None = None
    """Number of edges that the best are taken of; by default as few as are faithful enough, or as ACDC, UGS and RL
    choose."""
    faithfulness: float = 0.9
    """The faithfulness that is enough."""
    steps: int = 10
    """Steps of integrated attribution."""
    absolute: bool = True
    """Whether edges count whose attribution is negative."""
    acdc: ACDCConfig = field(default_factory=ACDCConfig)
    """Settings of ACDC."""
    ugs: UGSConfig = field(default_factory=UGSConfig)
    """Settings of uniform gradient sampling."""
    rl: PruningConfig = field(default_factory=PruningConfig)
    """Settings of discovery by reinforcement learning."""
    constants: ConstantsConfig = field(default_factory=ConstantsConfig)
    """Settings of the fit of optimal constants."""
    seed: int = 0
    """Seed of the states and of everything random."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise UserError(unknown("method", self.method, get_args(Method)))
        require_numbers(
            self, at_least_1=("states", "edges", "steps"), share=("faithfulness",), seed=("seed",)
        )  # fmt: skip


def discover_run(
    loaded: Loaded, config: DiscoverConfig = DiscoverConfig(), name: str | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Find a circuit, and write it with a picture to the run's analyses/circuits/.

    Args:
        name: of the circuit; by default made of the method, the replacement and the behaviour.

    Raises:
        UserError: an unknown concept or kind, no behaviour to be found, or a circuit that can't be chosen.
        RunError: something else is stored under that name.
    """
    folder = circuit_path(loaded, free_name(name, config.method, config.replace, config.when))
    here, held_out = (behaviour_of(loaded, config, seed, progress) for seed in (config.seed, _other_seed(config.seed)))
    here.require()
    with progress.bar(f"Finding a circuit by {config.method}", 100, "%") as update:
        found = find(here, config, lambda done: update(round(100 * done)))
    mask, chosen = choose(here, found, config)
    if config.edges is None and mask.kept == found.circuit(here.graph.edges).kept:
        longer = ", let it learn longer (--ugs.updates)" if config.method == "ugs" else ""
        progress.warn(
            f"all {mask.kept} edges that lead to a decision are kept: by the scores of {config.method} no smaller "
            f"circuit has a faithfulness of {config.faithfulness}; ask for less (--faithfulness){longer} or take "
            "another method."
        )
    reference = found.reference
    if config.replace == "optimal" and found.method != "ugs":
        reference = fit_constants(here, mask, config.constants)
    held_out = held_out.with_constants(reference)  # which are fitted, where they are optimal
    nothing, kl = held_out.require(), float(held_out.mean_distances(mask))
    stored = Stored(loaded, found, mask, reference, config)
    result = loaded.source | {
        "circuit": folder.name, "method": config.method, "replace": config.replace, "when": config.when,
        "edges": mask.kept, "chosen": chosen, "candidates": here.graph.edges,
        "faithfulness": 1 - kl / nothing, "kl": kl, "kl_without_any": nothing, "by_link": by_link(mask),
        "forwards": found.cost.forwards, "backwards": found.cost.backwards, "seconds": found.cost.seconds,
    }  # fmt: skip
    save_circuit(folder, stored, result)
    picture = circuit_picture(mask, found.scores, folder.parent / f"{folder.name}.png")
    return result | {"folder": str(folder), "picture": str(picture)}


def settings_of(stored: StoredCircuit) -> DiscoverConfig:
    """How a stored circuit was found.

    Raises:
        UserError: it is no discovery, but a cut that `circuit break` made.
    """
    path = circuit_path(stored.loaded, stored.name)
    if "habit" in stored.described.get("result", {}):
        raise UserError(
            f"{path} is a cut that breaks a habit, and no circuit of a behaviour; `circuit break` has judged it: give "
            "what `rl-interp circuit discover` found."
        )
    return from_plain(DiscoverConfig, stored.described["settings"], path)


def behaviour_of(loaded: Loaded, config: DiscoverConfig, seed: int, progress: Progress = SILENT) -> Behaviour:
    """The agent's decisions in states of the kind that a config asks for."""
    return Behaviour.of(loaded.agent, states_of(loaded, config, seed, progress), config.replace, seed=seed)


def states_of(loaded: Loaded, config: DiscoverConfig, seed: int, progress: Progress = SILENT) -> States:
    """States of the kind that a config asks for, with counterfactuals where these are put in place."""
    change = config.change if config.replace == "counterfactual" else None
    if isinstance(loaded.env, MazeConfig) and config.when == "parting" and change is None:
        # One square of a maze with the cheese anywhere: the mouse is put there, without playing the episode.
        anywhere = MazeConfig(min_side=loaded.env.min_side, max_side=loaded.env.max_side, decision=True)
        mazes = draw_mazes(anywhere, config.states, seed)
        obs = torch.from_numpy(at_decision_square(mazes).observations())
        return States(obs.to(loaded.agent.device), loaded.agent.initial_state(len(obs)))
    return play_states(loaded, config.states, seed, change, progress, config.when)


METHODS: dict[str, Callable[[Behaviour, DiscoverConfig, Report], Discovery]] = {
    "acdc": lambda behaviour, config, report: acdc(behaviour, config.acdc, report),
    "eap": lambda behaviour, config, report: attribute(behaviour, 0, config.absolute, report),
    "eap-ig": lambda behaviour, config, report: attribute(behaviour, config.steps, config.absolute, report),
    "ugs": lambda behaviour, config, report: ugs(
        behaviour, replace(config.ugs, seed=config.seed), report, config.faithfulness
    ),
    "rl": lambda behaviour, config, report: prune(behaviour, config.rl, config.faithfulness, config.seed, report),
}
"""How each method is asked for."""


def find(behaviour: Behaviour, config: DiscoverConfig, report: Report = lambda done: None) -> Discovery:
    """Run the method of a config."""
    return METHODS[config.method](behaviour, config, report)


def choose(behaviour: Behaviour, found: Discovery, config: DiscoverConfig) -> tuple[Mask, int]:
    """The circuit of a config's number of edges, or that which the method chose, or the smallest that is faithful
    enough, of sizes that grow by a quarter; all edges where none is. And how many edges were taken, before those that
    lead nowhere were left out."""
    if config.edges is not None:
        return found.circuit(config.edges), config.edges
    if found.mask is not None:
        return found.mask, found.mask.kept
    total = behaviour.graph.edges
    count = max(1.0, total / 1000)
    while count < total:
        mask = found.circuit(round(count))
        if mask.kept and behaviour.faithfulness(mask) >= config.faithfulness:
            return mask, round(count)
        count = math.ceil(count * _GROWTH)
    return found.circuit(total), total


def by_link(mask: Mask) -> dict[str, int]:
    """How many edges of each link a circuit has, without those of which it has none."""
    counts = {link.name: int((mask.values[link.name] > 0).sum()) for link in mask.graph.links}
    return {name: count for name, count in counts.items() if count}


def _other_seed(seed: int) -> int:
    """Far enough for the episodes to be others."""
    return seed + 100_000
