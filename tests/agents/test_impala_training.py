"""IMPALA's learning: losses, phases, actors, resume."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from selection import in_full

from rl_interp.agents.cbet import CBETConfig
from rl_interp.agents.impala import IMPALAConfig, Training, default_config, make_agent, train
from rl_interp.agents.impala.actor import Actor, environments, flat_weights, set_flat_weights, unroll_layout
from rl_interp.agents.impala.actor_pool import LocalActorPool
from rl_interp.agents.impala.learner import Learner, Moments, losses
from rl_interp.agents.load import load_agent, load_config
from rl_interp.agents.loop import DivergedError
from rl_interp.agents.phases import Transfer
from rl_interp.core.agent import PolicyOutput
from rl_interp.core.envs import CrafterConfig, MazeConfig, MiniGridConfig
from rl_interp.core.envs.games import GameVector
from rl_interp.core.envs.workers import WorkerError
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.run import Run

SMALL = IMPALAConfig(
    env=MiniGridConfig("MiniGrid-Empty-5x5-v0"), agent_steps=640, num_envs=4, unroll=10, hidden=16, lstm=16,
    eval_episodes=2, checkpoint_every=0, log_every=80, precision="fp32",
)  # fmt: skip
MAZE = replace(
    SMALL, env=MazeConfig(max_side=5, start="anywhere", curriculum=True), lstm=0, channels=(4, 4), minibatches=2
)
CLIPPED = replace(SMALL, clip=0.2, epochs=2, minibatches=2)
COUNTING = replace(SMALL, cbet=CBETConfig(coefficient=0.1, width=1 << 12))


def make(path, config=SMALL, seed=0):
    return Run.create(path, "impala", config, seed)


def empty_unroll(config):
    layout = unroll_layout(config, make_agent(config))
    return {name: np.zeros(*entry) for name, entry in layout.items()}


def played(config=SMALL, seed=0):
    actor, unroll = Actor(config, seed, index=0), empty_unroll(config)
    actor.play(flat_weights(make_agent(config)), unroll)
    return unroll


def test_a_resumed_training_without_saved_environments_plays_new_episodes(monkeypatch):
    monkeypatch.delattr(GameVector, "state")
    agent = make_agent(SMALL)
    begun = []
    for state in (None, {}, {"life": 1}):  # of a new run, of one resumed from another kind of pool, and once more
        pool = LocalActorPool(SMALL, 0, agent)
        pool.publish(flat_weights(agent))
        if state is not None:
            pool.restore(state)
        begun.append(pool.next()[1]["log_probs"].copy())
        lives = pool.state()
        pool.close()
    assert lives == {"life": 2}
    assert not any(np.array_equal(begun[i], begun[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_weights_survive_being_flattened():
    torch.manual_seed(0)
    one, other = make_agent(SMALL), make_agent(SMALL)
    set_flat_weights(other, flat_weights(one))
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_an_unroll_holds_what_the_learner_would_compute(taken_log_probs):
    """The probabilities that the actor wrote are those of the unrolled network with the same weights and state."""
    torch.manual_seed(0)
    agent, actor, unroll = make_agent(SMALL), Actor(SMALL, 0, index=0), empty_unroll(SMALL)
    for _ in range(3):  # so that states are no longer zero, and episodes have ended
        actor.play(flat_weights(agent), unroll)
    np.testing.assert_allclose(unroll["log_probs"], taken_log_probs(agent, unroll), atol=1e-5)


def test_the_losses_are_those_written_out():
    """Without a trace through the episode's end: two steps, an episode that terminates, and its reset."""
    config = replace(SMALL, num_envs=1, unroll=3, gamma=0.9, entropy_cost=0.01)
    logits = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]], [[0.5, 0.5]], [[0.0, 0.0]]])
    values = torch.tensor([[1.0], [2.0], [5.0], [3.0]])
    batch = {
        "actions": torch.tensor([[1], [0], [1]]),
        "rewards": torch.tensor([[0.0], [1.0], [0.0]]),
        "terminated": torch.tensor([[False], [True], [False]]),
        "first": torch.tensor([[False], [False], [False], [True]]),
    }
    log_probs = logits[:-1].log_softmax(-1)
    taken = log_probs.gather(-1, batch["actions"][..., None])[..., 0]
    batch["log_probs"] = taken.clone()
    got = losses(config, PolicyOutput(logits=logits, value=values), batch)
    vs = [0.9 * 1.0, 1.0]  # the last step's value is its reward: the episode ended there
    advantages = [0.9 * 1.0 - 1.0, 1.0 - 2.0]
    policy = -(advantages[0] * taken[0, 0] + advantages[1] * taken[1, 0]) / 2
    value = 0.5 * ((vs[0] - 1.0) ** 2 + (vs[1] - 2.0) ** 2) / 2
    entropy = -sum((log_probs[t, 0].exp() * log_probs[t, 0]).sum() for t in range(2)) / 2
    torch.testing.assert_close(got.policy, policy)
    torch.testing.assert_close(got.value, torch.tensor(value))
    torch.testing.assert_close(got.total, policy + 0.5 * value - 0.01 * entropy)


def test_ppos_surrogate_is_what_the_paper_says(segment_of_one):
    """Four steps of one environment, ratios on both sides of the bounds (Schulman et al. 2017, eq. 7 and figure 1): the
    gradient stops where the ratio has gone further than the bound in the direction of the advantage, and only there."""
    logits, batch = segment_of_one
    config = replace(SMALL, num_envs=1, unroll=4, gamma=0.9, vtrace_lambda=0.0, clip=0.2, entropy_cost=0.0)
    logits.requires_grad_()
    values = torch.tensor([[0.0], [0.0], [0.0], [0.0], [0.0]])
    got = losses(config, PolicyOutput(logits=logits, value=values), batch)
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5])
    rewards = torch.tensor([1.0, -1.0, 1.0, -1.0])  # with values of 0 and λ = 0, the advantages
    normal = rewards / rewards.std(correction=0)
    clipped = ratios.clamp(0.8, 1.2)
    torch.testing.assert_close(got.policy, -torch.minimum(ratios * normal, clipped * normal).mean())
    (slope,) = torch.autograd.grad(got.total, logits)
    moved = slope[:4, 0].abs().sum(-1) > 1e-6
    assert moved.tolist() == [False, True, True, False]


@pytest.fixture
def segment_of_one():
    """Logits of four steps and what was recorded, with ratios of 1.5, 1.5, 0.5 and 0.5 and rewards of 1, -1, 1, -1."""
    logits = torch.tensor([[[0.3, -0.2]], [[0.1, 0.4]], [[-0.5, 0.2]], [[0.0, 0.9]], [[0.0, 0.0]]])
    actions = torch.tensor([[0], [1], [1], [0]])
    taken = logits[:-1].log_softmax(-1).gather(-1, actions[..., None])[..., 0]
    return logits, {
        "actions": actions,
        "log_probs": taken - torch.tensor([1.5, 1.5, 0.5, 0.5]).log()[:, None],
        "rewards": torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]),
        "terminated": torch.zeros(4, 1, dtype=torch.bool),
        "first": torch.zeros(5, 1, dtype=torch.bool),
    }


def test_beside_the_surrogate_values_and_advantages_are_brought_to_one_scale_over_updates(segment_of_one):
    """Rewards ten times as large change neither loss; and what an update without a spread brings is not blown up."""
    logits, batch = segment_of_one
    config = replace(SMALL, num_envs=1, unroll=4, gamma=0.9, vtrace_lambda=0.0, clip=0.2)
    values = torch.zeros(5, 1)
    got = losses(config, PolicyOutput(logits=logits, value=values), batch)
    larger = losses(config, PolicyOutput(logits=logits, value=values), batch | {"rewards": 10 * batch["rewards"]})
    torch.testing.assert_close(larger.policy, got.policy)
    torch.testing.assert_close(larger.value, got.value)

    moments, alone = (Moments(), Moments()), 1e-3 * batch["rewards"]
    for _ in range(50):
        losses(config, PolicyOutput(logits=logits, value=values), batch, moments)
    quiet = losses(config, PolicyOutput(logits=logits, value=values), batch | {"rewards": alone}, moments)
    assert abs(quiet.policy) < 0.02 * abs(got.policy)
    restored = Moments()
    restored.restore(moments[0].state())
    assert (restored.mean, restored.variance) == (moments[0].mean, moments[0].variance)


def test_pretraining_learns_from_the_bonus_alone_and_knows_no_end():
    config = replace(COUNTING, pretrain=True)
    unroll = played(config)
    rewarded = {name: array.copy() for name, array in unroll.items()}
    rewarded["rewards"] += 100
    rewarded["terminated"][:] = True
    results = []
    for each in (unroll, rewarded):
        torch.manual_seed(0)
        learner = Learner(make_agent(config), config, torch.device("cpu"))
        results.append(learner.update({**each, "bonus": np.full(unroll["rewards"].shape, 0.1, np.float32)}, 0.0))
    assert results[0].total == results[1].total
    torch.manual_seed(0)
    without = Learner(make_agent(config), config, torch.device("cpu"))
    assert (
        without.update({**unroll, "bonus": np.zeros(unroll["rewards"].shape, np.float32)}, 0.0).total
        != results[0].total
    )


def test_minibatches_share_the_environments_with_their_states():
    unroll = played()
    parts = [environments(unroll, np.arange(start, start + 2)) for start in (0, 2)]
    for name, whole in unroll.items():
        axis = 0 if name.startswith("state") else 1
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts], axis), whole)
    with pytest.raises(UserError, match="minibatches=3 given for 4 environments"):
        replace(SMALL, minibatches=3)


def test_a_run_takes_an_update_for_each_minibatch_of_each_epoch(tmp_path):
    run = make(tmp_path / "run", config := replace(COUNTING, minibatches=2, epochs=3))
    train(config, run, seed=0, actors=0)
    assert run.load_state()["learner"]["updates"] == 6 * SMALL.agent_steps // (SMALL.num_envs * SMALL.unroll)


def test_later_epochs_deal_the_environments_anew(monkeypatch):
    training, seen = Training(replace(SMALL, num_envs=8, minibatches=2, epochs=3), seed=0), []
    update = training.learner.update

    def noted(unroll, progress):
        seen.append(unroll)
        return update(unroll, progress)

    monkeypatch.setattr(training.learner, "update", noted)
    _, unroll = training.actors.next()
    training.actors.next = lambda: (0, unroll)
    training.advance()
    training.close()
    passes = [np.concatenate([part["log_probs"] for part in seen[i : i + 2]], 1) for i in (0, 2, 4)]
    np.testing.assert_array_equal(passes[0], unroll["log_probs"])
    for later in passes[1:]:
        assert not np.array_equal(later, unroll["log_probs"])
        np.testing.assert_array_equal(np.sort(later, 1), np.sort(unroll["log_probs"], 1))


@pytest.mark.parametrize("network", ["impala", "drc"])
def test_policy_and_value_are_in_float32_beside_bf16(network):
    agent, read = make_agent(SMALL if network == "impala" else replace(SMALL, network="drc", channels=(4,), lstm=0)), []
    for head in (agent.policy, agent.baseline):
        head.register_forward_hook(lambda module, args, out: read.append((args[0].dtype, out.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        agent.unroll(torch.zeros(2, 1, 3, 7, 7, dtype=torch.uint8))
    assert read == [(torch.float32, torch.float32)] * 2


def test_step_sizes_do_not_rise_and_an_ablated_stream_has_no_surrogate():
    with pytest.raises(UserError, match=r"final_learning_rate=0\.01 given with learning_rate=0\.002; step"):
        replace(SMALL, final_learning_rate=0.01)
    with pytest.raises(UserError, match=r"self_ablation given with clip=0\.2, .*; give clip=0"):
        replace(SMALL, self_ablation=4, clip=0.2)
    with pytest.raises(UserError, match=r"channels=\(\) given; they are widths of 1 to 16 sections"):
        replace(SMALL, channels=())


def test_an_epoch_more_learns_from_the_same_batch():
    """Two epochs are two updates by one unroll; V-trace sees in the second that the policy has moved."""
    training = Training(replace(SMALL, epochs=2), seed=0)
    learner = Learner(make_agent(SMALL), SMALL, torch.device("cpu"))
    learner.agent.load_state_dict(training.agent.state_dict())
    _, unroll = training.actors.next()
    training.actors.next = lambda: (0, unroll)
    training.advance()
    rhos = [learner.update(unroll, 0.0).rho for _ in range(2)]
    for a, b in zip(training.agent.parameters(), learner.agent.parameters(), strict=True):
        assert torch.equal(a, b)
    assert abs(rhos[0] - 1) < 1e-5 < abs(rhos[1] - 1)
    training.close()


@pytest.mark.full
def test_returns_are_extrinsic_whatever_the_bonus():
    """The reported returns of a policy that never learns are the same with a bonus of any size."""
    logged = []
    for coefficient in (0.0, 1000.0):
        config = replace(
            COUNTING, learning_rate=1e-30, cbet=CBETConfig(coefficient=coefficient, width=1 << 12), agent_steps=1600
        )
        training = Training(config, 0)
        while training.agent_steps < 1600:
            training.advance()
        logged.append(training.metrics())
    assert logged[0]["episodes"] > 3
    assert logged[0]["episode_return"] == logged[1]["episode_return"] <= 1
    assert logged[0]["bonus"] == 0
    assert logged[1]["bonus"] > 1


def test_the_bonus_is_that_of_the_counts_in_order_of_arrival():
    from rl_interp.agents.cbet import CBET

    training = Training(COUNTING, 0)
    _, unroll = training.actors.next()
    env = COUNTING.env
    counts = CBET(COUNTING.cbet, 4, env.observation_shape, env.scene_shape, 0)
    wanted = [
        counts(unroll["obs"][t], unroll["scene"][t - 1], unroll["scene"][t], unroll["first"][t]) for t in range(1, 11)
    ]
    np.testing.assert_array_equal(training._bonus(0, unroll), np.stack(wanted))


@pytest.mark.parametrize("config", [SMALL, COUNTING, CLIPPED, *in_full(MAZE)], ids=["base", "cbet", "clipped", "maze"])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, config):
    whole = Training(config, 3)
    while whole.agent_steps < 640:
        if whole.agent_steps == 320:
            run = make(tmp_path / "run", config, 3)
            run.save_checkpoint(320, whole.agent.state_dict(), whole.state())
        whole.advance()
    resumed = Training(config, 3)
    resumed.restore(run.load_weights(), run.load_state(), run.path)
    assert resumed.agent_steps == 320
    while resumed.agent_steps < 640:
        resumed.advance()
    for name, weight in whole.agent.state_dict().items():
        assert torch.equal(weight, resumed.agent.state_dict()[name]), name
    assert whole.metrics()["loss"] == resumed.metrics()["loss"]


def test_training_logs_checkpoints_evaluates_and_loads(tmp_path):
    run = make(tmp_path / "run", COUNTING)
    final = train(COUNTING, run, 0, actors=0)
    assert len(final.returns) == 2
    assert "success_rate" in final.summary(COUNTING.env)
    lines = run.metrics()
    assert lines[-1]["step"] == 640
    assert {"loss", "entropy", "rho", "bonus", "steps_per_second"} <= lines[-1].keys()
    assert run.checkpoint_steps() == [640]
    assert load_agent(run.path).agent.policy.weight.shape == (7, 16)


def test_an_environment_that_gives_no_number_stops_training_in_one_sentence(monkeypatch):
    actor = Actor(SMALL, 0, index=0)
    original = actor.env.recv

    def poisoned():
        step = original()
        step.reward[2] = np.nan
        return step

    monkeypatch.setattr(actor.env, "recv", poisoned)
    with pytest.raises(WorkerError, match="environment 2 of MiniGrid-Empty-5x5-v0 gave the reward nan"):
        actor.play(flat_weights(make_agent(SMALL)), empty_unroll(SMALL))


def test_a_loss_that_is_no_number_stops_training(tmp_path):
    config = replace(SMALL, learning_rate=1e30, max_grad_norm=1e30)
    run = make(tmp_path / "run", config)
    with pytest.raises(DivergedError, match="became (nan|inf) at step"):
        train(config, run, 0, actors=0)
    assert run.checkpoint_steps() == []


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    config = replace(COUNTING, pretrain=True, cbet=replace(COUNTING.cbet, reset_probability=0.001))
    run = make(tmp_path_factory.mktemp("explorer") / "run", config)
    train(config, run, 0, actors=0)
    return run


def test_transfer_starts_as_the_explorer_and_leaves_it_as_it_was(explorer, tmp_path):
    config = replace(SMALL, explorer=str(explorer.path), learning_rate=0.01)
    training = Training(config, 1)
    agent = training.agent
    assert isinstance(agent, Transfer)
    pretrained = explorer.load_weights()
    obs = torch.from_numpy(played()["obs"][:1])
    torch.testing.assert_close(agent.unroll(obs).logits, load_agent(explorer.path).agent.unroll(obs).logits)
    task_before = agent.task.policy.weight.clone()
    for _ in range(20):
        training.advance()
    for name, weight in agent.explorer.state_dict().items():
        assert torch.equal(weight, pretrained[name]), name
    assert not torch.equal(agent.task.policy.weight, task_before)
    run = make(tmp_path / "run", config)
    run.save_checkpoint(800, agent.state_dict(), training.state())
    assert torch.equal(load_agent(run.path).agent.unroll(obs).logits, agent.unroll(obs).logits)


def test_a_transfer_agent_opens_both_networks(explorer):
    from rl_interp.core.check_agent import check_agent

    agent = make_agent(replace(SMALL, explorer=str(explorer.path)))
    check_agent(agent, torch.from_numpy(played()["obs"][0]))
    assert {"lstm.h", "explorer.lstm.h", "explorer.conv1.post"} <= agent.hook_points.keys()
    assert not any(point.head for point in agent.hook_points.values())


def test_transfer_between_other_actions_is_refused(explorer):
    config = replace(SMALL, env=CrafterConfig(), explorer=str(explorer.path))
    with pytest.raises(RunError, match="action names"):
        make_agent(config)


def test_phases_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="pretrain given without a bonus"):
        replace(SMALL, pretrain=True)
    with pytest.raises(UserError, match="counts are reset at random in pre-training only"):
        replace(COUNTING, cbet=CBETConfig(reset_probability=0.001))
    with pytest.raises(UserError, match="pre-train first"):
        replace(COUNTING, pretrain=True, explorer="x")


def test_defaults_depend_on_the_environment():
    assert default_config("CrafterReward-v1").lstm == 256
    assert default_config("MiniGrid-Unlock-v0", agent_steps=7).agent_steps == 7
    maze = default_config("rl_interp/Maze-v0")
    assert maze.lstm == 0
    assert maze.env == MazeConfig(start="anywhere", curriculum=True)


def test_a_config_comes_back_from_plain_values(tmp_path):
    config = replace(COUNTING, env=CrafterConfig(length=99), channels=(4, 8))
    assert load_config(make(tmp_path / "run", config)) == config
