"""DreamerV3's replay, learning, phases and resume."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rl_interp.agents.cbet import CBETConfig
from rl_interp.agents.dreamerv3 import DreamerV3Config, Training, default_config, distributions, make_agent, train
from rl_interp.agents.dreamerv3.learner import EXPLORER, Learner
from rl_interp.agents.load import load_agent
from rl_interp.agents.loop import DivergedError
from rl_interp.core.envs import env_config
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.interrupt import Interrupted
from rl_interp.core.run import Run

SMALL = default_config(
    "MiniGrid-Empty-5x5-v0", size="debug", precision="fp32", agent_steps=240, num_envs=2, batch_size=2, batch_length=8,
    train_ratio=2.0, learning_starts=64, imag_horizon=4, eval_episodes=2, checkpoint_every=0, log_every=100,
)  # fmt: skip
COUNTING = replace(SMALL, cbet=CBETConfig(coefficient=0.1, width=1 << 12))


def make(path, config=SMALL, seed=0):
    return Run.create(path, "dreamerv3", config, seed)


def batch_of(config, seed=0, time=8, batch=2):
    rng = np.random.default_rng(seed)
    shape = (time, batch)
    values = {
        "obs": rng.integers(4, size=(*shape, *config.env.observation_shape), dtype=np.uint8),
        "actions": rng.integers(7, size=shape), "rewards": rng.random(shape).astype(np.float32),
        "terminated": rng.random(shape) < 0.1, "first": rng.random(shape) < 0.1,
    }  # fmt: skip
    if config.cbet:
        values["bonus"] = rng.random(shape).astype(np.float32)
    if config.replay_latents:
        values |= {
            "before_deter": rng.random((batch, 32)).astype(np.float32),
            "before_stoch": rng.integers(4, size=(batch, 4)),
            "before_actions": rng.integers(7, size=batch),
        }
    return values


def test_learning_lowers_every_loss():
    torch.manual_seed(0)
    config = replace(COUNTING, model_lr=1e-2)
    learner, batch = Learner(make_agent(config).train(), torch.device("cpu")), batch_of(config)
    figures = [learner.update(batch)[0] for _ in range(30)]
    for name in ("image_loss", "reward_loss", "bonus_loss", "cont_loss"):
        assert figures[-1][name] < 0.8 * figures[0][name], name
    assert learner.updates == 30


def test_the_slow_critic_follows(monkeypatch):
    torch.manual_seed(0)
    learner, batch = Learner(make_agent(SMALL).train(), torch.device("cpu")), batch_of(SMALL)
    behaviour = learner.agent.behaviour
    pairs = list(zip(behaviour.slow_critic.parameters(), behaviour.critic.parameters(), strict=True))
    learner.update(batch)
    assert all(torch.equal(slow, fast) for slow, fast in pairs)
    before = [slow.clone() for slow, _ in pairs]
    learner.update(batch)
    for was, (slow, fast) in zip(before, pairs, strict=True):
        torch.testing.assert_close(slow, 0.98 * was + 0.02 * fast)


def test_extrinsic_rewards_and_the_bonus_have_heads_of_their_own():
    """Another bonus changes neither what the reward head learns nor the reported return."""
    batch = batch_of(COUNTING)
    heads = []
    for bonus in (0.0, 5.0):
        torch.manual_seed(0)
        learner = Learner(make_agent(replace(COUNTING, model_lr=1e-3)).train(), torch.device("cpu"))
        learner.update({**batch, "bonus": np.full_like(batch["rewards"], bonus)})
        heads.append(learner.agent.world_model)
    assert torch.equal(heads[0].reward.out.weight, heads[1].reward.out.weight)
    assert not torch.equal(heads[0].bonus.out.weight, heads[1].bonus.out.weight)


def test_the_replay_keeps_the_latents_that_the_agent_had_and_updates_renew_them(tmp_path):
    """The agent's own and its explorer's, beside those of following the replayed episodes from their beginning."""
    source = make(tmp_path / "explorer", config := replace(COUNTING, pretrain=True))
    source.save_checkpoint(0, make_agent(config).state_dict())
    config = replace(SMALL, explorer=str(source.path), replay_latents=True, learning_starts=1000)
    training = Training(config, 0, None)
    with mock.patch.object(distributions, "sample", distributions.mode):
        for _ in range(12):
            training.advance()
    replay, agent, played = training.replay, training.agent, slice(0, 12)
    seen = {name: torch.from_numpy(replay.fields[name][played]) for name in ("obs", "actions", "first")}
    with torch.no_grad(), mock.patch.object(distributions, "sample", distributions.mode):
        for model, prefix in ((agent.world_model, ""), (agent.explorer.world_model, EXPLORER)):
            latent = model.observe(seen["obs"], seen["actions"].long(), seen["first"]).latent
            for name, wanted in model.rssm.packed(latent, prefix).items():
                np.testing.assert_allclose(replay.latents[name][played], wanted, atol=1e-3)
    before = {name: array[played].copy() for name, array in replay.latents.items()}
    batch = replay.sample(2, 8, np.random.default_rng(0))
    figures, latent = training.learner.update(batch)
    assert figures.keys().isdisjoint(latent._fields)
    training.config = replace(config, learning_starts=1, batch_length=8, train_ratio=16.0)
    training._learn()
    changed = {name: (array[played] != before[name]).any() for name, array in replay.latents.items()}
    assert changed == {"deter": True, "stoch": True, "explorer_deter": False, "explorer_stoch": False}
    training.close()


def test_pretraining_dreams_of_the_bonus_alone_and_knows_no_end():
    config = replace(COUNTING, pretrain=True)
    torch.manual_seed(0)
    agents = {pretrain: make_agent(replace(COUNTING, pretrain=pretrain)) for pretrain in (False, True)}
    weights = agents[True].state_dict()
    with torch.no_grad():
        weights["world_model.reward.out.bias"][200:] = 5.0
        weights["world_model.bonus.out.bias"][130:140] = 5.0
        weights["world_model.cont.out.bias"][:] = -5.0
    dreams = {}
    for pretrain, agent in agents.items():
        agent.load_state_dict(weights)
        start = agent.world_model.rssm.initial(3)
        dreams[pretrain] = agent.behaviour.imagine(agent.world_model, start, 4)
    assert config.pretrain
    assert (dreams[True].cont == 1).all()
    assert (dreams[False].cont[1:] == 0).all()
    assert dreams[True].rewards.max() < 100 < dreams[False].rewards.min()


def test_returns_are_extrinsic_whatever_the_bonus(tmp_path):
    logged = []
    for coefficient in (0.0, 1000.0):
        config = replace(
            COUNTING, cbet=CBETConfig(coefficient=coefficient, width=1 << 12), learning_starts=300, agent_steps=300
        )  # so that nothing is learned, and the same is played
        run = make(tmp_path / str(coefficient), config)
        train(config, run, seed=0)
        logged.append([line["episode_return"] for line in run.metrics() if "episode_return" in line])
    assert logged[0] == logged[1]
    assert logged[0]


def test_the_bonus_that_was_paid_is_logged():
    training = Training(replace(COUNTING, learning_starts=1000), 0, None)
    for _ in range(10):
        training.advance()
    # What the last step gave is not stored yet.
    paid = [*training.replay.fields["bonus"][1:10], training._came["bonus"]]
    assert training.metrics()["bonus"] == pytest.approx(np.mean(paid)) != 0
    assert "bonus" not in training.metrics(), "a step's bonus is told once"
    training.close()


@pytest.mark.parametrize(
    "config", [SMALL, COUNTING, replace(SMALL, replay_latents=True)], ids=["base", "cbet", "latents"]
)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path, config, monkeypatch):
    whole = make(tmp_path / "whole", config)
    train(config, whole, seed=3)
    assert [line["step"] for line in whole.metrics()] == [100, 200]
    parts = make(tmp_path / "parts", config)
    stopped = Training.advance

    def stop_at_half(self):
        stopped(self)
        if self.agent_steps == 120:
            import signal

            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "advance", stop_at_half)
    with pytest.raises(Interrupted):
        train(config, parts, seed=3)
    assert [line["step"] for line in parts.metrics()] == [100, 120]  # what there was since the last line is not lost
    monkeypatch.undo()
    train(config, parts, seed=3)
    one, other = whole.load_weights(), parts.load_weights()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert whole.load_state()["learner"]["updates"] == parts.load_state()["learner"]["updates"] > 0


def test_transfer_starts_from_the_explorer_which_never_moves(tmp_path):
    source = make(tmp_path / "explorer", config := replace(COUNTING, pretrain=True, agent_steps=120))
    train(config, source, seed=0)
    transfer = replace(SMALL, explorer=str(source.path))
    run = make(tmp_path / "transfer", transfer)
    training = Training(transfer, 1, None)
    explorer = training.agent.explorer
    obs = torch.from_numpy(batch_of(SMALL)["obs"][:1])
    with torch.no_grad():
        agent = training.agent.eval()
        ours, theirs = agent.unroll(obs).logits, explorer.eval().unroll(obs).logits
    torch.testing.assert_close(ours.softmax(-1), 0.99 * theirs.softmax(-1) + 0.01 / 7)
    training.close()
    train(transfer, run, seed=1)
    saved = {
        name.removeprefix("explorer."): w for name, w in run.load_weights().items() if name.startswith("explorer.")
    }
    pretrained = source.load_weights()
    assert saved.keys() == pretrained.keys()
    assert all(torch.equal(saved[name], pretrained[name]) for name in saved)
    assert load_agent(run.path).agent.behaviour.actor.out.weight.any()


def test_an_explorer_that_does_not_fit_is_refused(tmp_path):
    other = default_config("CrafterReward-v1", size="debug")
    run = make(tmp_path / "crafter", other)
    run.save_checkpoint(0, make_agent(other).state_dict())
    with pytest.raises(RunError, match="transfer between environments that share them"):
        make_agent(replace(SMALL, explorer=str(run.path)))


@pytest.mark.parametrize("part", ["reward", "decoder"])
def test_a_loss_that_is_not_finite_is_named_and_nothing_is_saved(tmp_path, part, monkeypatch):
    run = make(tmp_path / "run", replace(SMALL, log_every=1000))
    init = Learner.__init__

    def broken(self, agent, device):
        init(self, agent, device)
        with torch.no_grad():
            getattr(agent.world_model, part).out.bias.fill_(float("nan"))

    monkeypatch.setattr(Learner, "__init__", broken)
    term = {"reward": "reward_loss", "decoder": "image_loss"}[part]
    with pytest.raises(DivergedError, match=f"{term} became nan at step .*; the last checkpoint is kept"):
        train(replace(SMALL, log_every=1000), run, seed=0)
    assert not run.checkpoint_steps()


def test_latents_that_are_not_finite_do_not_reach_the_replay():
    """They would outlive the checkpoint that a diverged run is resumed from: slots before it are renewed in place."""
    training = Training(replace(SMALL, replay_latents=True, learning_starts=1000), 0, None)
    for _ in range(12):
        training.advance()
    with torch.no_grad():
        training.agent.world_model.rssm.gru.linear.weight.fill_(float("nan"))
    training.config = replace(training.config, learning_starts=1, train_ratio=16.0)
    with pytest.raises(DivergedError, match="dyn_loss became nan"):
        training._learn()
    assert np.isfinite(training.replay.latents["deter"]).all()
    training.close()


def test_bad_configurations_are_refused():
    with pytest.raises(UserError, match="batch_length=1"):
        DreamerV3Config(batch_length=1)
    with pytest.raises(UserError, match=r"train_ratio=0\.0"):
        DreamerV3Config(train_ratio=0.0)
    with pytest.raises(UserError, match="replay_capacity=100 given for num_envs=4; of each it must hold more than"):
        DreamerV3Config(replay_capacity=100, num_envs=4, batch_length=25)
    with pytest.raises(UserError, match="horizon=1"):
        DreamerV3Config(horizon=1)
    with pytest.raises(UserError, match="pretrain given without a bonus"):
        DreamerV3Config(pretrain=True)


class _Recorded(TorchDispatchMode):
    """Names and results' shapes of all operations."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.seen.append((str(func), tuple(out.shape) if isinstance(out, torch.Tensor) else None))
        return out


@pytest.mark.parametrize("how", ["fp32", "bf16", "explorer", "latents"])
@pytest.mark.parametrize("env", ["MiniGrid-Empty-5x5-v0", "CrafterReward-v1"])
def test_an_update_can_be_recorded(env, how, tmp_path):
    """What a CUDA graph asks for: the same operations whatever the data are, none of which waits for a value or takes
    one from the host."""
    config = replace(COUNTING, env=env_config(env), replay_latents=how == "latents")
    if how == "bf16":
        config = replace(config, precision="bf16")
    if how == "explorer":
        source = make(tmp_path / "explorer", replace(config, pretrain=True))
        source.save_checkpoint(0, make_agent(config).state_dict())
        config = replace(config, cbet=None, explorer=str(source.path))
    learner = Learner(make_agent(config).train(), torch.device("cpu"))
    learner.update(batch_of(config))  # optimisers make their state
    recordings = []
    for seed in (1, 2):
        tensors = {name: torch.from_numpy(array) for name, array in batch_of(config, seed).items()}
        with _Recorded() as recorded:
            learner._take_steps(tensors)
        recordings.append(recorded.seen)
    assert recordings[0] == recordings[1]
    names = {name for name, _ in recordings[0]}
    assert not {name for name in names if any(word in name for word in ("_local_scalar_dense", "lift", "nonzero"))}
