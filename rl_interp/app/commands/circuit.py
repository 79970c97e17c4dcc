"""Find, test and cut what computes an agent's decisions: units and the connections between them."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from rl_interp.agents.load import Loaded
from rl_interp.analysis.circuits.breaking import break_run
from rl_interp.analysis.circuits.coded import coded
from rl_interp.analysis.circuits.comparison import CompareConfig, compare_circuits
from rl_interp.analysis.circuits.discovery import DiscoverConfig, discover_run
from rl_interp.analysis.circuits.evaluation import EvaluateConfig, evaluate_circuit
from rl_interp.analysis.circuits.importance import importance_run
from rl_interp.analysis.circuits.layers import ImportanceConfig
from rl_interp.analysis.circuits.report import circuit_report
from rl_interp.analysis.circuits.stored import circuit_path, read_circuit
from rl_interp.app.commands.flags import Agent, Autoencoder, Count, NewName, Output, RunName, Seed, optional, several
from rl_interp.app.pages import write_page
from rl_interp.app.progress import TERMINAL
from rl_interp.circuits.breaking import BreakingConfig


@dataclass(frozen=True, kw_only=True)
class AgentAndCircuit(Agent):
    """The flags of commands on a circuit of a run."""

    circuit: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CIRCUIT")]
    """Name of a circuit of the run, or a path."""


FromCircuit = Annotated[AgentAndCircuit, tyro.conf.arg(name="")]


@dataclass(frozen=True, kw_only=True)
class TwoAgents(Agent):
    """The flags of commands on circuits of two runs."""

    other: RunName
    """The other agent's run: a name under runs/ or a path."""
    circuit: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CIRCUIT")]
    """Name of the first agent's circuit, or a path."""
    other_circuit: Annotated[str | None, optional("NAME")] = None
    """Name of the other agent's circuit, or a path; by default the same name."""


@dataclass(frozen=True)
class AgentAndLatents(Agent):
    """The flags of commands for which a dictionary's latents can be units."""

    sae: Autoencoder = None
    """A dictionary's run, whose latents become units of the layer that it was fitted to, beside its error."""

    def load(self) -> Loaded:
        return coded(super().load(), self.sae)


FromAgentOrLatents = Annotated[AgentAndLatents, tyro.conf.arg(name="")]


def circuit_importance(
    agent: FromAgentOrLatents,
    hooks: Annotated[tuple[str, ...], several("HOOK")] = (),
    config: Annotated[ImportanceConfig, tyro.conf.arg(name="")] = ImportanceConfig(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Measure how much each unit matters: how far decisions are from the agent's own with the unit replaced.

    Each kind of replacement gives an importance of its own, with gradients' estimates beside them. Then whole episodes
    are played without the half of each layer that matters least, by each kind's ranking, and without a random half.

    Args:
        agent: The agent to measure.
        hooks: Hook points; by default those after a nonlinearity that decisions depend on, and the memory.
        config: What is measured, and what is played.
    """
    loaded = agent.load()
    return importance_run(loaded, hooks, config, TERMINAL)


def circuit_discover(
    agent: FromAgentOrLatents,
    config: Annotated[DiscoverConfig, tyro.conf.arg(name="")] = DiscoverConfig(),  # noqa: B008 - frozen
    name: NewName = None,
) -> dict[str, Any]:
    """Find the connections by which an agent decides, in all states or in those where a concept holds.

    The circuit is stored under the run, with a picture. How faithful it is, is measured on states of other episodes: 1
    where the circuit decides as the agent does, 0 as with every edge cut.

    Args:
        agent: The agent to look into.
        config: What is looked for, and how.
        name: Name of the circuit, or a path; by default made of the method, the replacement and the behaviour.
    """
    return discover_run(agent.load(), config, name, TERMINAL)


def circuit_evaluate(
    of: FromCircuit,
    config: Annotated[EvaluateConfig, tyro.conf.arg(name="")] = EvaluateConfig(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Judge a circuit: does it decide like the agent, is all of it needed, and how does it play alone?

    It is compared with circuits of all sizes by the same scores, with random circuits of the same wiring, and with
    those that the same method finds on other states and with other replacements. Whole episodes are played with the
    circuit alone, without it, with random circuits, with every edge cut, and as trained.

    Args:
        of: The agent and its circuit.
        config: What it is judged by.
    """
    return evaluate_circuit(of.load(), of.circuit, config, TERMINAL)


def circuit_break(
    agent: FromAgentOrLatents,
    bad: Annotated[str, tyro.conf.arg(metavar="HABIT")],
    states: Count = 30,
    episodes: Count = 400,
    replace: Annotated[str, tyro.conf.arg(metavar="KIND")] = "mean",
    config: Annotated[BreakingConfig, tyro.conf.arg(name="")] = BreakingConfig(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Learn the fewest edges whose cutting ends a habit of an agent and spares what it does otherwise.

    Beside it: as many random edges cut, whole units cut, and all weights trained on the same states.

    Args:
        agent: The agent whose habit is broken.
        bad: The habit: corner, of maze agents; right or CONCEPT:right, of transformers; or CONCEPT:ACTION[,ACTION],
            such as blinky_near:up.
        states: Number of states that show the habit to learn from.
        episodes: Number of held-out episodes to play in each condition.
        replace: What is put in place of what a cut edge carries: zero, mean, mean-position, or optimal constants, which
            are learned with the cut.
        config: How the cut is learned.
    """
    return break_run(agent.load(), bad, config, states, episodes, replace, TERMINAL)


def circuit_compare(
    of: Annotated[TwoAgents, tyro.conf.arg(name="")],
    config: Annotated[CompareConfig, tyro.conf.arg(name="")] = CompareConfig(),  # noqa: B008 - frozen
) -> dict[str, Any]:
    """Compare circuits of two agents of one architecture, and try each in the other agent.

    Edges are compared as they are, and with the units of one agent matched to those of the other by their activations
    in the same states.

    Args:
        of: The two agents and their circuits.
        config: What they are compared by.
    """
    second = Agent(run=of.other, device=of.device).load()
    return compare_circuits(of.load(), of.circuit, second, of.other_circuit or of.circuit, config, TERMINAL)


def circuit_page(
    of: FromCircuit,
    output: Output = None,
    states: Count = 300,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Write a page of a circuit: units and edges to click on, and where, when and with which concepts they fire.

    Args:
        of: The agent and its circuit.
        output: The file to write; by default analyses/circuits/CIRCUIT.html in the run.
        states: Number of states in which units are looked at.
        seed: Seed of the episodes that they are of.
    """
    loaded = of.load()
    stored = read_circuit(loaded, of.circuit)
    loaded = stored.loaded
    data = circuit_report(loaded, stored, states, seed, TERMINAL)
    folder = circuit_path(loaded, of.circuit)
    page = write_page("circuit", data, output or folder.parent / f"{folder.name}.html")
    return loaded.source | {"circuit": stored.name, "page": str(page), "states": states}
