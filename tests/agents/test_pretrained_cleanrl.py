"""Reading agents of CleanRL's scripts, against networks written out with the names that the scripts give to weights."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rl_interp.agents.load import load_agent
from rl_interp.agents.pretrained.cleanrl import read
from rl_interp.agents.pretrained.runs import policy_of
from rl_interp.app.cli import main
from rl_interp.core.check_agent import check_agent
from rl_interp.core.envs import env_config
from rl_interp.core.errors import RunError

CARTPOLE, PONG = "CartPole-v1", "ALE/Pong-v5"
ACTIONS = {CARTPOLE: 2, PONG: 6}


def dense(*widths: int, between: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), between()]
    return nn.Sequential(*layers[:-1])


def frames(stack: int) -> list[nn.Module]:
    convolutions = [nn.Conv2d(stack, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3)]
    return [*convolutions, nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512)]


class DQN(nn.Module):
    """dqn.py and dqn_atari.py: Q-values."""

    def __init__(self, env: str, outputs: int = 1):
        super().__init__()
        last = ACTIONS[env] * outputs
        if env == CARTPOLE:
            self.network = dense(4, 120, 84, last, between=nn.ReLU)
        else:
            self.network = nn.Sequential(*frames(4), nn.ReLU(), nn.Linear(512, last))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"q_values": self.network(x)}


class C51(DQN):
    """c51.py and c51_atari.py: probabilities of 101 returns for each action."""

    def __init__(self, env: str):
        super().__init__(env, 101)
        self.register_buffer("atoms", torch.linspace(-100, 100, 101))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        probabilities = self.network(x).reshape(len(x), -1, 101).softmax(2)
        return {"q_values": (probabilities * self.atoms).sum(2)}


class PPO(nn.Module):
    """ppo.py and ppo_atari.py: two networks, or two layers on shared convolutions."""

    def __init__(self, env: str):
        super().__init__()
        self.network = None
        if env == CARTPOLE:
            self.actor, self.critic = (dense(4, 64, 64, outputs, between=nn.Tanh) for outputs in (2, 1))
        else:
            self.network = nn.Sequential(*frames(4), nn.ReLU())
            self.actor, self.critic = nn.Linear(512, ACTIONS[env]), nn.Linear(512, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = x if self.network is None else self.network(x)
        return {"logits": self.actor(x), "value": self.critic(x)[:, 0]}


class PPOWithLSTM(nn.Module):
    """ppo_atari_lstm.py: one frame at a time."""

    def __init__(self, env: str):
        super().__init__()
        self.network = nn.Sequential(*frames(1), nn.ReLU())
        self.lstm = nn.LSTM(512, 128)
        self.actor, self.critic = nn.Linear(128, ACTIONS[env]), nn.Linear(128, 1)

    def play(self, x: Tensor, done: Tensor) -> dict[str, Tensor]:
        """`x [T, B, 1, 84, 84]`, `done [T, B]`: whether the state is dropped before."""
        state, outputs = (torch.zeros(1, x.shape[1], 128), torch.zeros(1, x.shape[1], 128)), []
        for now, dropped in zip(x, done.float(), strict=True):
            state = tuple(each * (1 - dropped)[None, :, None] for each in state)
            hidden, state = self.lstm(self.network(now)[None], state)
            outputs.append(hidden[0])
        hidden = torch.stack(outputs)
        return {"logits": self.actor(hidden), "value": self.critic(hidden)[..., 0]}


def saved(folder: Path, network: nn.Module, **beside: object) -> Path:
    path = folder / "it.cleanrl_model"
    weights = network.state_dict()
    torch.save({"model_weights": weights, **beside} if beside else weights, path)
    return path


def observations(env: str, *shape: int) -> Tensor:
    if env == CARTPOLE:
        return torch.randn(*shape, 4)
    return torch.randint(256, (*shape, 84, 84), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("algorithm", "network", "env"),
    [
        ("dqn", DQN, CARTPOLE),
        ("dqn", DQN, PONG),
        ("c51", C51, CARTPOLE),
        ("c51", C51, PONG),
        ("ppo", PPO, CARTPOLE),
        ("ppo", PPO, PONG),
    ],
)
def test_an_agent_decides_as_its_scripts_network(tmp_path, algorithm, network, env):
    torch.manual_seed(0)
    theirs = network(env)
    path = saved(tmp_path, theirs, args={"seed": 1, "cuda": True}) if algorithm == "c51" else saved(tmp_path, theirs)
    config, weights = read(path, algorithm, env_config(env))
    agent = policy_of(config, weights, path)
    obs = observations(env, 6) if env == CARTPOLE else observations(env, 6, 4)
    check_agent(agent, obs)
    with torch.no_grad():
        out, wanted = agent.step(obs), theirs(obs if env == CARTPOLE else obs / 255)
    for name, value in wanted.items():
        torch.testing.assert_close(getattr(out, name), value, atol=1e-5, rtol=1e-5)
        assert value.std(0).max() > 1e-4


def test_a_recurrent_agent_remembers_and_forgets_as_its_scripts_network(tmp_path):
    torch.manual_seed(0)
    theirs = PPOWithLSTM(PONG)
    path = saved(tmp_path, theirs)
    config, weights = read(path, "ppo-lstm", env_config(PONG))
    assert config.env.frame_stack == 1
    agent = policy_of(config, weights, path)
    obs, first = observations(PONG, 5, 3, 1), torch.zeros(5, 3, dtype=torch.bool)
    check_agent(agent, obs[0])
    first[0], first[2, 1] = True, True
    with torch.no_grad():
        out, wanted = agent.unroll(obs, (), first), theirs.play(obs / 255, first)
    for name, value in wanted.items():
        torch.testing.assert_close(getattr(out, name), value, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(wanted["logits"], theirs.play(obs / 255, first & False)["logits"], atol=1e-4)


def test_it_becomes_a_run_that_the_commands_take(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, PPO(CARTPOLE))

    def run(command: str) -> dict:
        capsys.readouterr()
        assert main([*command.split(), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    told = run(f"import cleanrl {path} --algo ppo --env {CARTPOLE} --name it")
    assert told["kind"] == "cleanrl"
    assert told["parameters"] == sum(each.numel() for each in PPO(CARTPOLE).parameters())
    assert told["hook_points"][:2] == ["policy.h1.pre", "policy.h1.post"]
    assert told["checked"] is None
    assert "CleanRL" in told["unchecked"]
    assert run("evaluate it --episodes 2")["episodes"] == 2
    assert load_agent("it").run.meta["parent"]["checkpoint"] == str(path)


def test_another_algorithm_is_refused_by_name(tmp_path):
    with pytest.raises(RunError, match="--algo ppo given, and .* has the layers of CleanRL's dqn; give --algo dqn"):
        read(saved(tmp_path, DQN(CARTPOLE)), "ppo", env_config(CARTPOLE))
    with pytest.raises(RunError, match="has the layers of CleanRL's c51; give --algo c51"):
        read(saved(tmp_path, C51(CARTPOLE)), "dqn", env_config(CARTPOLE))
    with pytest.raises(RunError, match="layers of CleanRL's ppo-lstm; give --algo ppo-lstm"):
        read(saved(tmp_path, PPOWithLSTM(PONG)), "ppo", env_config(PONG))


def test_an_agent_whose_normalisation_is_not_saved_is_refused(tmp_path):
    network = nn.Module()
    network.critic, network.actor_mean = nn.Linear(3, 1), nn.Linear(3, 1)
    network.actor_logstd = nn.Parameter(torch.zeros(1, 1))
    with pytest.raises(RunError, match="normalises observations by statistics that it does not save"):
        read(saved(tmp_path, network), "ppo", env_config("Pendulum-v1"))


def test_an_agent_of_another_environment_is_refused(tmp_path, capsys):
    path = saved(tmp_path, DQN(CARTPOLE))
    command = ["import", "cleanrl", str(path), "--algo", "dqn", "--name", str(tmp_path / "run"), "--env"]
    assert main([*command, "MountainCar-v0"]) == 1
    assert "an agent with 2 discrete actions; MountainCar-v0 has 3" in capsys.readouterr().err
    assert main([*command, "Pendulum-v1"]) == 1
    assert "2 discrete actions; Pendulum-v1 has 1 continuous" in capsys.readouterr().err
    network = DQN(CARTPOLE)
    network.network[0] = nn.Linear(7, 120)
    saved(tmp_path, network)
    assert main([*command, CARTPOLE]) == 1
    assert "does not fit CartPole-v1, which shows vector of (4,): weights are (120, 7)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class _Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_what_is_no_agent_is_refused_and_no_code_run(tmp_path):
    path = saved(tmp_path, DQN(CARTPOLE), args=_Attack())
    with pytest.raises(RunError, match=r"it holds (builtins\.)?exec, which is neither a tensor nor a plain container"):
        read(path, "dqn", env_config(CARTPOLE))
    torch.save({"conv.weight": torch.ones(2)}, path)
    with pytest.raises(RunError, match=r"holds 'conv.weight', which no agent of dqn, c51, ppo or ppo-lstm has"):
        read(path, "dqn", env_config(CARTPOLE))
    extra = DQN(CARTPOLE)
    extra.more = nn.Linear(2, 2)
    with pytest.raises(RunError, match=r"holds 'more.weight', which an agent of CleanRL's dqn does not have"):
        read(saved(tmp_path, extra), "dqn", env_config(CARTPOLE))
    path.write_bytes(b"msgpack of flax")
    with pytest.raises(RunError, match="is no checkpoint of PyTorch's"):
        read(path, "dqn", env_config(CARTPOLE))
