"""Reading maze policies that train-procgen-pytorch saved, against a network written out with the published names."""

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rl_interp.agents.pretrained.maze import agent_of, read_checkpoint
from rl_interp.app.cli import main
from rl_interp.core.check_agent import check_agent
from rl_interp.core.envs import MazeConfig
from rl_interp.core.errors import RunError

WIDTHS = (4, 6, 8)
MOVES = {"up": [5], "down": [3], "left": [0, 1, 2], "right": [6, 7, 8], "stay": [4, 9, 10, 11, 12, 13, 14]}


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x.relu()).relu()) + x


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.res1, self.res2 = _Residual(outputs), _Residual(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.res2(self.res1(nn.functional.max_pool2d(self.conv(x), 3, 2, 1)))


class _Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.block1, self.block2, self.block3 = _Block(3, WIDTHS[0]), _Block(*WIDTHS[:2]), _Block(*WIDTHS[1:])
        self.fc = nn.Linear(WIDTHS[2] * 8 * 8, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block3(self.block2(self.block1(x))).relu().flatten(1)).relu()


class Policy(nn.Module):
    """What the published policies compute from pixels between 0 and 1: logits of 15 actions, and the value."""

    def __init__(self):
        super().__init__()
        self.embedder = _Embedder()
        self.fc_policy, self.fc_value = nn.Linear(16, 15), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.embedder(x)
        return self.fc_policy(hidden), self.fc_value(hidden).reshape(-1)


@pytest.fixture(scope="module")
def policy() -> Policy:
    torch.manual_seed(0)
    policy = Policy().eval()
    policy.fc_policy.weight.data *= 5  # so that the actions are told apart
    return policy


@pytest.fixture
def path(tmp_path, policy) -> Path:
    return saved(tmp_path, policy.state_dict())


def saved(folder: Path, weights: dict, **others: object) -> Path:
    optimiser = torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict()
    torch.save(
        {"model_state_dict": OrderedDict(weights), "optimizer_state_dict": optimiser, **others}, folder / "it.pth"
    )
    return folder / "it.pth"


def test_an_imported_policy_equals_the_published_network(path, policy):
    config, agent = agent_of(read_checkpoint(path), 5, path)
    assert (config.channels, config.hidden, config.env) == (WIDTHS, 16, MazeConfig(region=5))
    obs = torch.randint(256, (7, 3, 64, 64), dtype=torch.uint8)
    check_agent(agent, obs)
    with torch.no_grad():
        out = agent.step(obs)
        logits, value = policy(obs / 255)
    wanted = torch.stack([logits.softmax(1)[:, keys].sum(1) for keys in MOVES.values()], 1)
    assert out.logits is not None
    torch.testing.assert_close(out.logits.softmax(1), wanted, atol=1e-6, rtol=0)
    torch.testing.assert_close(out.value, value, atol=1e-6, rtol=1e-6)
    assert wanted.std(0).min() > 1e-4


@pytest.mark.full
def test_it_becomes_a_run_that_the_commands_take(tmp_path, path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(command: str) -> dict:
        capsys.readouterr()
        assert main([*command.split(), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    assert run(f"import maze {path} --region 1 --name published")["channels"] == list(WIDTHS)
    assert run("evaluate published --episodes 2")["protocol"]["id"] == "rl_interp/Maze-v0"
    run("collect published --hook block2.res1.sum --samples 100")
    run("maze goals published --episodes 8")
    run("maze field published --side 5 --add cheese:block2.res1.sum=-1")
    run("maze retarget published --side 5 --hook block2.res1.sum --channel 1")
    run("maze steer published --hook block2.res1.sum --mazes 8 --episodes 2 --units 1")
    run("saliency published --steps 2 --target q:left --method gradient --output film.mp4")
    run("maps published --states 8 --clusters 3 --hooks block2.res1.sum")


def bare(weights: dict) -> dict:
    return weights


def by_lee(weights: dict) -> dict:
    return {"state_dict": weights}


def by_langosco(weights: dict) -> dict:
    return {"model_state_dict": OrderedDict(weights), "optimizer_state_dict": {"state": {}, "param_groups": []}}


def on_several_devices(weights: dict) -> dict:
    return {"model_state_dict": {f"module.{name}": weight for name, weight in weights.items()}}


@pytest.mark.parametrize("before_1_6", [False, True], ids=["zipped", "before PyTorch 1.6"])
@pytest.mark.parametrize("variant", [bare, by_lee, by_langosco, on_several_devices])
def test_every_published_variant_is_read(tmp_path, policy, variant, before_1_6):
    path = tmp_path / "model_200015872.pth"
    torch.save(variant(policy.state_dict()), path, _use_new_zipfile_serialization=not before_1_6)
    _, agent = agent_of(read_checkpoint(path), 5, path)
    assert torch.equal(agent.policy.weight, policy.fc_policy.weight)
    assert torch.equal(agent.torso.sections[2].res2.conv2.bias, policy.embedder.block3.res2.conv2.bias)


class _Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_a_checkpoint_with_a_foreign_object_is_refused_by_name_and_no_code_run(tmp_path, policy):
    with pytest.raises(RunError, match=r"it holds (builtins\.)?exec, which is neither a tensor nor a plain container"):
        read_checkpoint(saved(tmp_path, policy.state_dict(), evil=_Attack()))
    with pytest.raises(RunError, match=r"it holds pathlib\."):
        read_checkpoint(saved(tmp_path, policy.state_dict(), args=tmp_path))


def test_what_is_no_checkpoint_is_refused(tmp_path, policy, capsys):
    path = tmp_path / "it.pth"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(RunError, match="is no checkpoint of PyTorch"):
        read_checkpoint(path)
    torch.save({"policy": policy.state_dict()}, path)
    with pytest.raises(RunError, match="holds no weights under model_state_dict or state_dict"):
        read_checkpoint(path)
    assert main(["import", "maze", str(path), "--name", str(tmp_path / "run")]) == 1
    assert "holds no weights" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_of_another_network_are_refused(policy):
    weights = policy.state_dict()
    with pytest.raises(RunError, match=r"it holds 'gru\.weight_hh_l0', which the maze policies without a memory"):
        agent_of(weights | {"gru.weight_hh_l0": torch.ones(2, 2)}, 5, "it")
    with pytest.raises(RunError, match="'embedder.fc.weight' is missing in it, which"):
        agent_of({name: value for name, value in weights.items() if name != "embedder.fc.weight"}, 5, "it")
    with pytest.raises(RunError, match="an agent with 9 actions; Procgen has 15"):
        agent_of(weights | {"fc_policy.weight": torch.ones(9, 16)}, 5, "it")
    with pytest.raises(RunError, match=r"it has a different architecture: 'fc.weight' is \(16, 100\) there"):
        agent_of(weights | {"embedder.fc.weight": torch.ones(16, 100)}, 5, "it")
