"""Circuits of two agents beside each other: do they have the same edges, and does the one's circuit serve the other?

Both agents are looked at in the same states: some that the first plays and some that the second plays, while the other
watches, so that it remembers what it has seen.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.discovery import DiscoverConfig, settings_of, states_of
from rl_interp.analysis.circuits.stored import StoredCircuit, circuit_path, read_circuit
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.judging import jaccard, shared_edges, shuffled
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.matching import Matching, match, require_alike
from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent, PolicyOutput, State, joined
from rl_interp.core.errors import UserError, require_numbers
from rl_interp.core.files import write_json, write_text
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import bootstrap, mean
from rl_interp.core.tables import markdown


@dataclass(frozen=True)
class CompareConfig:
    """What two circuits are compared by."""

    states: int = 128
    """Number of states that each agent plays, of episodes that the circuits were not found on."""
    random: int = 10
    """Number of random circuits of the same wiring."""
    seed: int = 2_000_000
    """Seed of the states and the random circuits."""

    def __post_init__(self) -> None:
        require_numbers(self, at_least_1=("states", "random"), seed=("seed",))


def compare_circuits(
    first: Loaded, circuit: str, second: Loaded, other_circuit: str, config: CompareConfig = CompareConfig(),
    progress: Progress = SILENT,
) -> dict[str, Any]:  # fmt: skip
    """Compare a circuit of one run's agent with one of another's, edge by edge and by what they do in the other agent;
    write the result beside the first circuit, with a row a link, and return what it says in sum.

    Raises:
        RunError: no such circuit.
        UserError: a circuit of another agent, or agents of different architectures or observations.
    """
    pair = read_circuit(first, circuit), read_circuit(second, other_circuit)
    first, second = (each.loaded for each in pair)
    require_alike(pair[0].mask.graph, pair[1].mask.graph)
    behaviours = _behaviours((first, second), pair, config, progress)
    matching, by_chance = match(*behaviours), match(behaviours[0], _shifted(behaviours[1]))
    masks = [stored.mask for stored in pair]
    result = first.source | {
        "other": str(second.run.path), "circuit": pair[0].name, "other_circuit": pair[1].name,
        "edges_of_both": [mask.kept for mask in masks], "edges_total": masks[0].graph.edges,
        "states": len(behaviours[0]),
        "by_place": _in_common(*masks),
        "by_activations": {
            "correlation": matching.mean_correlation, "correlation_by_chance": by_chance.mean_correlation,
            "correlation_by_node": {node: float(each.mean()) for node, each in matching.correlation.items()},
        } | _in_common(matching.carried(masks[0], masks[1].graph), masks[1]),
        "first_in_second": _served(masks, behaviours[1], matching, config),
        "second_in_first": _served(masks[::-1], behaviours[0], _inverse(matching), config),
    }  # fmt: skip
    folder = circuit_path(first, circuit)
    path = folder.parent / f"{folder.name}-beside-{second.run.path.name}.json"
    write_json(path, result)
    write_text(path.with_suffix(".md"), _table(result))
    for name in ("by_place", "by_activations"):
        result[name] = {key: value for key, value in result[name].items() if key != "by_link"}
    return result | {"table": str(path.with_suffix(".md")), "result": str(path)}


def _table(result: dict[str, Any]) -> str:
    """A row a link."""
    columns = [result[name]["by_link"] for name in ("by_place", "by_activations")]
    rows = [
        [
            link,
            *place["edges_of_both"],
            *(x for each in (place, columns[1][link]) for x in (each["shared"], f"{each['expected']:.1f}")),
        ]
        for link, place in columns[0].items()
    ]
    sides = [f"edges in {Path(result[name]).name}" for name in ("run", "other")]
    return markdown(
        ["from -> to", *sides, *(x for how in ("", ", units matched") for x in (f"shared{how}", "by chance"))], rows
    )


def _in_common(a: Mask, b: Mask) -> dict[str, Any]:
    links, (shared, by_chance) = shared_edges(a, b), jaccard(a, b)
    return {
        "shared": sum(each.shared for each in links), "expected": sum(each.expected for each in links),
        "jaccard": shared, "chance": by_chance,
        "by_link": {
            each.link: {"edges_of_both": [each.first, each.second], "shared": each.shared, "expected": each.expected}
            for each in links
        },
    }  # fmt: skip


def _served(masks: list[Mask], host: Behaviour, matching: Matching, config: CompareConfig) -> dict[str, Any]:
    """How faithful circuits are in the second agent: its own, the first's on the same places and on the matched units,
    and random ones of the first's wiring."""
    guest, own = masks
    graph = host.graph
    random = [host.faithfulness(Mask(graph, shuffled(guest, config.seed + i).values)) for i in range(config.random)]
    return {
        "faithfulness_of_own": host.faithfulness(Mask(graph, own.values)),
        "faithfulness_by_place": host.faithfulness(Mask(graph, guest.values)),
        "faithfulness_by_activations": host.faithfulness(matching.carried(guest, graph)),
        "faithfulness_random": vars(bootstrap([torch.tensor(random).numpy()], mean)),
    }


def _inverse(matching: Matching) -> Matching:
    return replace(matching, order={node: order.argsort() for node, order in matching.order.items()})


def _behaviours(
    agents: tuple[Loaded, Loaded], pair: tuple[StoredCircuit, StoredCircuit], config: CompareConfig, progress: Progress
) -> tuple[Behaviour, Behaviour]:
    """Of both agents, in the states of both."""
    first, second = agents
    if first.env.observation_shape != second.env.observation_shape:
        raise UserError(
            f"{first.run.path} sees {first.env.observation_shape} and {second.run.path} "
            f"{second.env.observation_shape}; circuits are compared of agents that see the same."
        )
    settings = [replace(settings_of(stored), states=config.states) for stored in pair]
    mine, watched = _seen_by_both(first, second.agent, settings[0], config.seed, progress)
    other, own = _seen_by_both(second, first.agent, settings[1], config.seed + config.states, progress)
    seen = _both(mine, own), _both(watched, other)
    one, two = (
        Behaviour.of(loaded.agent, states, how.replace, seed=config.seed).with_constants(stored.reference)
        for loaded, states, how, stored in zip(agents, seen, settings, pair, strict=True)
    )
    return one, two


class _Watched(Agent):
    """An agent that plays, and another that sees the same and remembers what it would."""

    def __init__(self, player: Agent, watcher: Agent):
        super().__init__()
        self.player, self.watcher = player, watcher
        self.preference_kind, self.observation = player.preference_kind, player.observation

    def initial_state(self, batch: int) -> State:
        return self.player.initial_state(batch), self.watcher.initial_state(batch)

    def after_action(self, state: State, actions: Tensor) -> State:
        return self.player.after_action(state[0], actions), self.watcher.after_action(state[1], actions)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        out = self.player.step(obs, state[0], first)
        return replace(out, state=(out.state, self.watcher.step(obs, state[1], first).state))


def _seen_by_both(
    player: Loaded, watcher: Agent, settings: DiscoverConfig, seed: int, progress: Progress
) -> tuple[States, States]:
    """States that one agent plays, as each remembers them."""
    seen = states_of(replace(player, agent=_Watched(player.agent, watcher)), settings, seed, progress)
    return _remembered(seen, 0), _remembered(seen, 1)


def _remembered(states: States, by: int) -> States:
    """The states, and their counterfactuals, with the memory of one of the two."""
    other = states.counterfactual
    return replace(states, memory=states.memory[by], counterfactual=other and _remembered(other, by))


def _both(a: States, b: States) -> States:
    steps = None if a.steps is None or b.steps is None else torch.cat([a.steps, b.steps])
    one, two = a.counterfactual, b.counterfactual
    other = None if one is None or two is None else _both(one, two)
    return States(torch.cat([a.obs, b.obs]), joined([a.memory, b.memory]), steps, counterfactual=other)


def _shifted(behaviour: Behaviour) -> Behaviour:
    """The same states in another order, of which no correlation is left but by chance."""
    return behaviour[torch.arange(len(behaviour)).roll(max(1, len(behaviour) // 3))]
