"""Breaking a behaviour: the fewest edges whose cutting ends it and spares the rest.

Li, Davies & Nadeau 2023, "Circuit Breaking: Removing Model Behaviors with Targeted Ablation" (arXiv 2309.05973, §3): a
mask is learned on few states in which an agent behaves badly, and on others that are to stay as they are. The published
loss is L(good) − α · L(bad) − λ(epoch) · Σ mask, with masks clamped to [0, 1] after each step of AdamW, λ growing from
epoch 20 on, and the mask rounded from time to time, so that what is learned is a cut and not a reweighting.
"""

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.constants import Constants
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import Values, count_passes
from rl_interp.circuits.states import States
from rl_interp.core.agent import Agent, evaluating
from rl_interp.core.errors import UserError, require_numbers
from rl_interp.core.progress import SILENT, Progress

_MEASURED = 64
"""Units that are cut alone, to see which to cut first."""


@dataclass(frozen=True)
class BreakingConfig:
    """Settings of the search, the published ones by default."""

    epochs: int = 200
    """Number of passes over the bad states, in one batch each."""
    learning_rate: float = 0.05
    """Step size of AdamW."""
    bad_weight: float = 0.2
    """Weight of the bad states' loss, alpha."""
    penalty_from: int = 20
    """Epoch from which cut edges cost something."""
    penalty_growth: float = 1e-4
    """Growth of the cost of an edge, in nats, an epoch."""
    constants_rate: float = 0.02
    """Step size for the constants that `optimal` puts in place, in standard deviations of each operand."""
    round_every: int = 50
    """Number of epochs between two roundings of the mask."""
    enough: float = 20.0
    """Loss of the bad states, in nats, beyond which nothing more is gained; without it there is no lower end."""
    batch: int = 64
    """Number of good states in each epoch's batch, drawn at random."""
    seed: int = 0
    """Seed of the states and of the batches."""

    def __post_init__(self) -> None:
        require_numbers(
            self,
            positive=("epochs", "learning_rate", "bad_weight", "constants_rate", "round_every", "enough", "batch"),
            at_least_0=("penalty_from", "penalty_growth"),
        )


@dataclass(frozen=True)
class Bad:
    """States in which an agent behaves badly, and what it does there.

    Attributes:
        behaviour: the states, and what cut edges carry there.
        actions: bool `[N, A]`: which of the actions are bad.
    """

    behaviour: Behaviour
    actions: Tensor

    def loss(self, preferences: Tensor) -> Tensor:
        """`[N]`: −log of the probability of a bad action, in nats; at the agent's temperature, if it has Q-values."""
        log_p = (preferences / self.behaviour.distance.temperature).log_softmax(-1)
        return -log_p.masked_fill(~self.actions, -torch.inf).logsumexp(-1)

    def share(self, preferences: Tensor) -> Tensor:
        """`[N]`: the probability of a bad action."""
        return (-self.loss(preferences)).exp()


@dataclass(frozen=True)
class Broken:
    """A cut, what takes the place of what its edges carried, and how it was found: by epoch, L(bad) and L(good) in
    nats, and edges below one half."""

    mask: Mask
    reference: Values = field(repr=False)
    bad: list[float] = field(default_factory=list, repr=False)
    good: list[float] = field(default_factory=list, repr=False)
    cut: list[int] = field(default_factory=list, repr=False)


def break_behaviour(
    bad: Bad, good: Behaviour, config: BreakingConfig | None = None, progress: Progress = SILENT
) -> Broken:
    """Learn which edges to cut; and by the same loss what takes the place of what they carry, where that is `optimal`.

    Args:
        bad: few states; 30 are enough for the published kind of behaviour.
        good: states in which the agent is to decide as before, of the same graph.

    Raises:
        UserError: the agent does not behave badly in these states.
    """
    config = config or BreakingConfig()
    share = float(bad.share(bad.behaviour.preferences).mean())
    if share < 0.1:
        raise UserError(
            f"the agent chooses a bad action with probability {share:.2g} in the bad states, so it lacks that habit; "
            "give states in which it shows it."
        )
    graph, generator = good.graph, torch.Generator().manual_seed(config.seed)
    vector = torch.ones(graph.edges, requires_grad=True)
    constants = Constants(good) if good.replace == "optimal" else None
    groups = [{"params": [vector], "lr": config.learning_rate}]
    if constants is not None:
        groups.append({"params": list(constants.parameters()), "lr": config.constants_rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    broken = Broken(Mask.full(graph), good.reference)
    with progress.bar("Breaking", config.epochs, "epochs") as update:
        for epoch in range(config.epochs):
            mask = Mask.of_vector(graph, vector)
            put = None if constants is None else constants()
            some = good[torch.randint(len(good), (min(config.batch, len(good)),), generator=generator)]
            of_bad = bad.loss(bad.behaviour.decisions(mask, put)).mean()
            of_good = some.distances(mask, put).mean().float()
            count_passes(backward=len(bad.behaviour) + len(some))
            # What an edge costs that is cut: nothing at first, so that the search begins with what matters.
            price = config.penalty_growth * max(0, epoch - config.penalty_from)
            loss = of_good - config.bad_weight * of_bad.clamp(max=config.enough) + price * (1 - vector).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                vector.clamp_(0, 1)
                if (epoch + 1) % config.round_every == 0 or epoch + 1 == config.epochs:
                    vector.copy_((vector >= 0.5).to(vector))
            broken.bad.append(float(of_bad.detach()))
            broken.good.append(float(of_good.detach()))
            broken.cut.append(int((vector.detach() < 0.5).sum()))
            update(epoch + 1)
    if constants is not None:
        broken = replace(broken, reference={key: value.detach() for key, value in constants().items()})
    return replace(broken, mask=Mask.of_vector(graph, vector.detach()))


def pruned_units(bad: Bad, good: Behaviour, config: BreakingConfig, at_least: float) -> Mask:
    """Whole units cut, every edge out of them, until L(bad) is `at_least` so many nats; half of all units at most. The
    first are those with which, each cut alone, the same loss is least, of the units that promise most by the gradient
    of L(bad): L(good) has none, as nothing decides more like the agent than the agent."""
    graph = good.graph
    vector = torch.ones(graph.edges, requires_grad=True)
    of_bad = bad.loss(bad.behaviour.decisions(Mask.of_vector(graph, vector))).mean()
    (slope,) = torch.autograd.grad(of_bad, vector)
    count_passes(backward=len(bad.behaviour))
    rise = {}  # of L(bad) where a unit is cut, to first order
    for name, values in Mask.of_vector(graph, -slope).values.items():
        link = graph.link(name)
        by_unit = values.sum(0) if link.dense else values
        rise[link.source] = rise.get(link.source, 0) + by_unit
    order = sorted((-float(each), node, unit) for node, of in rise.items() for unit, each in enumerate(of))
    drawn = torch.randperm(len(good), generator=torch.Generator().manual_seed(config.seed))[: config.batch]
    whole, some = Mask.full(graph), good[drawn]

    @torch.no_grad()
    def loss_without(unit: tuple[float, str, int]) -> float:
        cut = whole.without_nodes({unit[1]: [unit[2]]})
        return float(some.distances(cut).mean() - config.bad_weight * bad.loss(bad.behaviour.decisions(cut)).mean())

    order = [*sorted(order[:_MEASURED], key=loss_without), *order[_MEASURED:]]
    chosen: dict[str, list[int]] = {}
    cut = whole
    with torch.no_grad():
        for _, node, unit in order[: len(order) // 2]:
            chosen.setdefault(node, []).append(unit)
            cut = whole.without_nodes(chosen)
            if float(bad.loss(bad.behaviour.decisions(cut)).mean()) >= at_least:
                break
    return cut


def fine_tuned(
    bad: Bad, good: Behaviour, config: BreakingConfig, at_least: float, learning_rate: float = 1e-4
) -> Agent:
    """A copy of the agent with all weights trained by the same loss on the same states, until L(bad) is `at_least` so
    many nats, or as many epochs have passed."""
    agent = copy.deepcopy(good.agent)
    optimizer = torch.optim.Adam(agent.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(config.seed)

    def decisions(states: States) -> Tensor:
        memory = states.memory or agent.initial_state(len(states))
        return agent.step(states.obs, memory).preferences

    with evaluating(agent):
        for _ in range(config.epochs):
            some = good[torch.randint(len(good), (min(config.batch, len(good)),), generator=generator)]
            of_bad = bad.loss(decisions(bad.behaviour.states)).mean()
            if float(of_bad.detach()) >= at_least:
                break
            of_good = good.distance(some.preferences, decisions(some.states)).mean()
            optimizer.zero_grad()
            (of_good - config.bad_weight * of_bad).backward()
            optimizer.step()
    return agent
