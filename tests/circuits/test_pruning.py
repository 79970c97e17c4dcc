"""Discovery by reinforcement learning: what the environment pays for, and what is found in it."""

import gymnasium
import numpy as np
import pytest
import torch
from circuit_agents import make
from gymnasium.utils.env_checker import check_env

from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.circuits.discovery.rl.baselines import BASELINES, oracle, run
from rl_interp.circuits.discovery.rl.candidates import Candidates, edges_by_attribution, parts_by_attribution
from rl_interp.circuits.discovery.rl.env import Pruning, PruningEnv
from rl_interp.circuits.discovery.rl.method import PruningConfig, prune
from rl_interp.circuits.discovery.rl.task import (
    BehaviourScorer,
    BudgetSpent,
    Ledger,
    Table,
    Task,
    every_mask,
    load_task,
    save_task,
    tabulated,
)
from rl_interp.circuits.discovery.rl.training import RLConfig, follow, train
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import counted
from rl_interp.circuits.planted import two_layers
from rl_interp.circuits.states import States
from rl_interp.core.errors import RunError, UserError

STOP = -1


def six_edges() -> Task:
    """Edges 0 and 1 are needed; 2 or 3 is, whichever; 4 does harm and 5 nothing. Attribution ranks 4 first, and says of
    2 and 3 that neither matters."""
    masks = every_mask(6).double()
    a, b, c, d, harm, _ = masks.unbind(1)
    faithfulness = 0.4 * a + 0.3 * b + 0.3 * (1 - (1 - c) * (1 - d)) - 0.2 * harm * a
    scores = torch.tensor([0.4, 0.3, 0.01, 0.01, -0.5, 0.02], dtype=torch.float64)
    sources, dests = torch.tensor([0, 1, 2, 2, 3, 3]), torch.tensor([0, 0, 0, 1, 1, 1])
    candidates = Candidates(tuple("abcdef"), scores, sources, dests, torch.zeros(6, 2, dtype=torch.float64))
    return Task("six edges", candidates, Table(faithfulness))


def of(*kept: int) -> torch.Tensor:
    return torch.isin(torch.arange(6), torch.tensor(kept))


def test_the_oracle_finds_the_least_that_suffices():
    best = oracle(six_edges())
    assert best.kept.tolist() in (of(0, 1, 2).tolist(), of(0, 1, 3).tolist())
    assert best.faithfulness == pytest.approx(1)
    assert best.potential == pytest.approx(0.5)
    task = six_edges()
    assert task.potential(of(0, 1), task.scorer(of(0, 1)[None])).item() == pytest.approx(1 - 2 / 6 - 3 * 0.2)


def test_it_is_an_environment_of_gymnasiums():
    check_env(PruningEnv(six_edges()), skip_render_check=True)


def test_rewards_add_up_to_the_change_of_the_potential_whatever_is_done():
    env, rng = PruningEnv(six_edges()), np.random.default_rng(0)
    for allowed_alone in (True, False):
        for _ in range(20):
            _, info = env.reset()
            start, total, over = info["potential"], 0.0, False
            while not over:
                masks = env.action_masks()
                action = rng.choice(np.flatnonzero(masks) if allowed_alone else len(masks))
                _, reward, ended, truncated, info = env.step(action)
                total, over = total + reward, ended or truncated
                assert not (allowed_alone and truncated)
            assert total == pytest.approx(info["potential"] - start)


def test_masks_forbid_what_was_done():
    env = PruningEnv(six_edges())
    env.reset()
    assert env.action_masks().tolist() == [True] * 9  # six edges, two units with two edges each, stop
    _, _, _, _, info = env.step(6)
    assert info["kept"].tolist() == of(0, 1, 4, 5).tolist()
    assert env.action_masks().tolist() == [True, True, False, False, True, True, False, True, True]
    env.step(4)
    assert env.action_masks().tolist() == [True, True, False, False, False, True, False, False, True]


def test_to_park_pays_nothing_and_ends():
    """With a discount, a potential below 0 would pay (1 - γ)|Φ| for each step at which nothing is done."""
    env = PruningEnv(six_edges())
    env.reset()
    *_, info = env.step(0)
    assert info["potential"] < 0
    rewards, truncated = [], False
    while not truncated:
        _, reward, _, truncated, _ = env.step(0)
        rewards.append(reward)
        assert len(rewards) < 7
    assert rewards == [0.0] * 6
    assert isinstance(env, gymnasium.Env)


def test_paid_for_the_best_moment_to_go_too_far_costs_nothing():
    task = six_edges()
    pruning = Pruning(Ledger(task), 1, keep_best=True)
    rewards = [float(pruning.step(torch.tensor([action]))[0]) for action in (4, 3, 0, 1)]
    assert rewards == pytest.approx([0.3 + 1 / 6, 1 / 6, 0, 0])
    assert pruning.potential.item() < 0


@pytest.mark.full
def test_to_stop_at_once_pays_nothing_and_training_learns_better():
    task = six_edges()
    pruning = Pruning(Ledger(task), 1)
    assert pruning.step(torch.tensor([len(pruning.actions) + STOP])).tolist() == [0]
    ledger = Ledger(task)
    policy = train([ledger], RLConfig(updates=20), seed=0)
    assert follow(policy, Ledger(task)).potential > 0.3
    assert ledger.best().potential == pytest.approx(0.5)


def test_a_policy_does_not_care_for_the_order_of_candidates():
    task, order = six_edges(), torch.tensor([3, 0, 5, 1, 4, 2])
    policy = train([Ledger(task)], RLConfig(updates=3, episodes=8, hidden=16))
    before = Pruning(Ledger(task), 1)
    logits, value = policy(before.observe(), before.allowed())
    old = task.candidates
    moved = Candidates(
        tuple(old.names[i] for i in order), old.scores[order], old.sources[order], old.dests[order], old.depths[order]
    )
    table = task.scorer(every_mask(6)[:, order.argsort()])
    after = Pruning(Ledger(Task("moved", moved, Table(table))), 1)
    again, same = policy(after.observe(), after.allowed())
    torch.testing.assert_close(again[0, :6], logits[0, :6][order])
    torch.testing.assert_close((again[0, 6:], same), (logits[0, 6:], value))


def test_a_budget_holds_for_every_search_and_no_mask_costs_twice():
    task = six_edges()
    for search in BASELINES.values():
        ledger = Ledger(task, budget=5)
        found = run(search, ledger)
        assert ledger.scored <= 5
        assert found.potential == ledger.best(within=5).potential
    ledger = Ledger(task, budget=2)
    ledger(torch.stack([of(0), of(0), of(1)]))
    ledger(of(1)[None])
    assert (ledger.scored, ledger.forwards) == (2, 2)
    with pytest.raises(BudgetSpent):
        ledger(of(2)[None])
    train([ledger], RLConfig(updates=2, episodes=2, hidden=8))
    assert ledger.scored == 2


def test_greedy_finds_what_attribution_misses():
    """The one that does harm is ranked first by attribution, so that the others go before it."""
    task = six_edges()
    found = {name: run(search, Ledger(task)).potential for name, search in BASELINES.items()}
    assert found["greedy"] == pytest.approx(0.5)
    assert found["attribution"] < 0.4


def an_agents(count: int, choose=parts_by_attribution):
    agent, obs = make("lstm")
    obs = torch.cat([obs, obs + torch.randint_like(obs, 2)])
    h, c = agent.initial_state(6)
    behaviour = Behaviour.of(agent, States(obs, (torch.randn_like(h), torch.randn_like(c))), "resample")
    return behaviour, choose(behaviour.graph, attribute(behaviour, 2).scores, count)


def test_every_pass_is_counted():
    behaviour, selection = an_agents(4)
    task = Task("lstm", selection.candidates, BehaviourScorer(behaviour, selection))
    ledger = Ledger(task)
    with counted() as passes:
        run(BASELINES["greedy"], ledger)
    assert passes.forward == ledger.forwards == 6 * ledger.scored


def test_all_candidates_are_the_agent_and_none_is_0():
    behaviour, selection = an_agents(3)
    task = tabulated(Task("lstm", selection.candidates, BehaviourScorer(behaviour, selection)))
    assert task.scorer(task.all_kept(1)).item() == pytest.approx(1)
    assert task.scorer(~task.all_kept(1)).item() == pytest.approx(0)
    mask = selection.mask(torch.tensor([True, False, True]))
    gone = behaviour.graph.edges - mask.kept
    assert gone == int((selection.owner == 1).sum()) > 0


def test_parts_are_halves_by_attribution_and_cover_their_links():
    behaviour, selection = an_agents(24)
    assert len(selection.candidates) == 24
    names = selection.candidates.names
    assert any(" from [" in name for name in names)
    vector = Mask.full(behaviour.graph, 0.0)
    at = 0
    for link in behaviour.graph.links:
        owners = selection.owner[at : at + link.edges].view(link.shape)
        at += link.edges
        assert (owners == 24).all() or (owners < 24).all()
        if link.dense:
            assert (owners == owners[:1]).all()  # the edges out of a unit go together
    assert selection.mask(torch.zeros(24, dtype=torch.bool)).kept < vector.vector.numel()


def test_edges_that_matter_most_are_candidates():
    behaviour, selection = an_agents(5, edges_by_attribution)
    scores = attribute(behaviour, 2).scores
    chosen = (selection.owner < 5).nonzero()[:, 0]
    assert set(chosen.tolist()) == set(scores.abs().topk(5).indices.tolist())
    torch.testing.assert_close(selection.total(scores), selection.candidates.scores)
    assert set(selection.mask(of(0, 1, 2, 3, 4)[:5] & False).edges) == set(Mask.full(behaviour.graph).edges) - set(
        Mask.of_vector(behaviour.graph, (selection.owner < 5).float()).edges
    )


def test_where_nothing_changes_there_is_nothing_to_find():
    behaviour, selection = an_agents(3)
    with pytest.raises(UserError, match="no behaviour to find among them"):
        BehaviourScorer(behaviour, selection, least=1e6)
    with pytest.raises(UserError, match="so there are no candidates"):
        edges_by_attribution(behaviour.graph, torch.zeros(behaviour.graph.edges), 3)
    with pytest.raises(UserError, match="at most 16 can be tabulated"):
        every_mask(17)


def test_a_tabulated_task_is_written_and_read(tmp_path):
    task, path = six_edges(), tmp_path / "task.json"
    save_task(task, path)
    read = load_task(path)
    assert (read.name, read.tau, read.candidates.names) == (task.name, task.tau, task.candidates.names)
    torch.testing.assert_close(read.scorer(every_mask(6)), task.scorer(every_mask(6)))
    assert oracle(read).potential == pytest.approx(0.5)
    path.write_text(path.read_text().replace('"name": "f"', '"nome": "f"'))
    with pytest.raises(RunError):
        load_task(path)


@pytest.mark.full
def test_a_planted_circuit_is_pruned_to_what_suffices():
    planted = two_layers(0, 24)
    behaviour = Behaviour.of(planted.agent, planted.states, "resample", graph=planted.graph)
    config = PruningConfig(candidates=8, masks=60, states=16, steps=2, training=RLConfig(updates=6, episodes=4))
    found = prune(behaviour, config)
    kept = set(found.circuit().edges)
    assert len(kept) < planted.graph.edges / 2
    assert behaviour[:16].faithfulness(found.circuit()) > 0.7
    assert found.details["masks"] <= 60
    # The gate, attribution, the scorer's own, and each mask; all on 16 states.
    assert found.cost.forwards == 16 * (1 + 2 + 1 + found.details["masks"])
    assert found.cost.backwards == 16 * 2
