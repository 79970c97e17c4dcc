"""What is made of a model of Stable-Baselines3, and what is refused: recorded models, as they were saved or altered.
That what is read says the same as there is tested in tests/oracles/test_sb3.py."""

import base64
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from rl_interp.agents.load import load_agent
from rl_interp.agents.pretrained.runs import import_sb3
from rl_interp.agents.pretrained.vec_normalize import read_statistics
from rl_interp.app.cli import main
from rl_interp.core.envs import env_config
from rl_interp.core.errors import RunError
from rl_interp.core.hooks import run_with_cache

RECORDED = Path(__file__).parents[1] / "oracles" / "published_sb3"
CARTPOLE = env_config("CartPole-v1")


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """`run(command)`: its result; it must succeed."""
    monkeypatch.chdir(tmp_path)

    def call(command: str) -> dict:
        capsys.readouterr()
        assert main([*command.split(), "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


def altered(folder: Path, name: str = "ppo", weights=lambda weights: None, **data: object) -> Path:
    """A recorded model with other entries in its JSON, or with its weights altered."""
    path = folder / "it.zip"
    with zipfile.ZipFile(RECORDED / f"{name}.zip") as old, zipfile.ZipFile(path, "w") as new:
        readable = json.loads(old.read("data"))
        for entry, value in data.items():
            readable[entry] = readable[entry] | value if isinstance(readable[entry], dict) else value
        new.writestr("data", json.dumps(readable))
        state = torch.load(io.BytesIO(old.read("policy.pth")), weights_only=True)
        weights(state)
        torch.save(state, folder / "policy.pth")
        new.write(folder / "policy.pth", "policy.pth")
    return path


def test_a_model_becomes_a_run_that_the_commands_take(run):
    told = run(f"import sb3 {RECORDED / 'recurrent-ppo.zip'} --env CartPole-v1 --name it")
    assert (told["run"], told["kind"], told["algorithm"]) == ("runs/it", "sb3", "recurrent-ppo")
    assert {"lstm.c", "lstm.h", "lstm.i", "value.lstm.h", "policy.h1.post", "value.h2.post"} <= set(told["hook_points"])
    loaded = load_agent("it")
    assert told["parameters"] == sum(each.numel() for each in loaded.agent.parameters())
    assert told["checked"] is None or told["checked"] < 1e-5
    assert ("unchecked" in told) == (told["checked"] is None)
    assert loaded.run.meta["parent"]["checkpoint"] == str(RECORDED / "recurrent-ppo.zip")
    assert run("evaluate it --episodes 3")["episodes"] == 3


def test_a_normalised_model_says_which_files_it_is_of(run):
    files = [RECORDED / f"ppo-normalised.{ending}" for ending in ("zip", "pkl")]
    run(f"import sb3 {files[0]} --vecnormalize {files[1]} --env Acrobot-v1 --name it")
    loaded = load_agent("it")
    assert loaded.run.meta["parent"]["with"][0]["checkpoint"] == str(files[1])
    obs = torch.tensor([[1.0, 0, 1, 0, 3, -20]])
    _, cache = run_with_cache(loaded.agent, obs, names=["normalised"])
    mean, std = (getattr(read_statistics(files[1]), name)[""] for name in ("mean", "std"))
    assert torch.allclose(cache["normalised"], ((obs - mean) / std).clamp(-10, 10))


def test_statistics_with_code_are_refused_and_the_code_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code was run')",))

    path = tmp_path / "it.pkl"
    path.write_bytes(pickle.dumps({"obs_rms": Attack()}))
    with pytest.raises(RunError, match=r"it holds builtins\.exec, which is neither a numpy array"):
        read_statistics(path)
    path.write_bytes(pickle.dumps({"obs_rms": 3}))
    with pytest.raises(RunError, match="is no file of VecNormalize's"):
        read_statistics(path)


def test_statistics_of_other_observations_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"normalises 6 numbers, where CartPole-v1 has \(4,\)"):
        import_sb3(RECORDED / "ppo.zip", CARTPOLE, tmp_path / "run", RECORDED / "ppo-normalised.pkl")
    assert not (tmp_path / "run").exists()


def refused(path: Path, folder: Path, env=CARTPOLE) -> str:
    with pytest.raises(RunError) as error:
        import_sb3(path, env, folder / "run")
    assert not (folder / "run").exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("stable_baselines3.sac", "SAC"),
        ("stable_baselines3.td3", "TD3 or DDPG"),
        ("sb3_contrib.tqc", "TQC"),
        ("sb3_contrib.common.maskable", "MaskablePPO"),
    ],
)
def test_another_algorithm_is_refused_by_name(tmp_path, module, name):
    path = altered(tmp_path, policy_class={"__module__": f"{module}.policies"})
    assert f"is of {name}, which is not read; this suite reads DQN, QR-DQN, PPO" in refused(path, tmp_path)


class MyPolicy(nn.Module):
    pass


def test_a_policy_of_the_users_own_is_refused_by_name(tmp_path):
    pickled = base64.b64encode(pickle.dumps(MyPolicy)).decode()
    path = altered(tmp_path, policy_class={"__module__": "my.policies", ":serialized:": pickled})
    assert "has a policy of the class my.policies.MyPolicy, whose code is not run" in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"features_extractor_class": "<class '__main__.Mine'>"},
            "the features extractor __main__.Mine, whose code",
        ),
        ({"activation_fn": "<class 'my.Swish'>"}, "has the activation my.Swish, whose code is not run"),
        ({"activation_fn": "<function <lambda> at 0x7f>"}, "has the activation '<function <lambda> at 0x7f>', whose"),
        ({"squash_output": True}, "has a policy with squash_output=True, which this suite does not read"),
        ({"attention_heads": 4}, "has a policy with attention_heads=4, which this suite does not read"),
        ({"features_extractor_kwargs": {"depth": 3}}, "a features extractor with the settings ['depth']"),
    ],
)
def test_parts_that_change_the_network_are_refused_by_name(tmp_path, settings, sentence):
    assert sentence in refused(altered(tmp_path, policy_kwargs=settings), tmp_path)


def test_layers_that_this_suite_does_not_know_are_refused_by_name(tmp_path):
    path = altered(tmp_path, weights=lambda weights: weights.update({"norm.weight": torch.ones(2)}))
    assert "holds 'norm.weight', which a policy of Stable-Baselines3's for ppo does not have" in refused(path, tmp_path)
    path = altered(tmp_path, weights=lambda weights: weights.pop("action_net.bias"))
    assert "has no weights named 'action_net.bias'" in refused(path, tmp_path)
    shared = {"mlp_extractor.shared_net.0.weight": torch.ones(2, 2)}
    path = altered(tmp_path, weights=lambda weights: weights.update(shared))
    assert "layers that policy and value share after the features" in refused(path, tmp_path)


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("Acrobot-v1", "sees a Box of (4,); Acrobot-v1 shows vector of (6,)"),
        ("ALE/Pong-v5", "sees a Box of (4,); ALE/Pong-v5 shows pixels of (4, 84, 84)"),
        ("MiniGrid-Empty-5x5-v0", "sees a Box of (4,); MiniGrid-Empty-5x5-v0 shows symbols"),
    ],
)
def test_a_model_of_another_environment_is_refused(tmp_path, env, sentence):
    assert sentence in refused(RECORDED / "ppo.zip", tmp_path, env_config(env))


def test_a_model_of_other_actions_is_refused(tmp_path):
    path = altered(tmp_path, "a2c-gsde", observation_space={"_shape": [4]})
    assert "1 continuous actions; CartPole-v1 has 2 discrete" in refused(path, tmp_path)
    path = altered(tmp_path, action_space={":type:": "<class 'gymnasium.spaces.multi_binary.MultiBinary'>"})
    assert "with MultiBinary actions; wanted are Discrete, MultiDiscrete or Box" in refused(path, tmp_path)


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "it.zip"
    path.write_bytes(b"no zip")
    assert "is no model of Stable-Baselines3's" in refused(path, tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", "{}")
    assert "is a zip without 'policy.pth'" in refused(path, tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", "0" * 10_000)
        archive.writestr("policy.pth", "")
    assert "has a 'data' that Stable-Baselines3 does not write" in refused(path, tmp_path)
    path = altered(tmp_path, weights=lambda weights: weights.update(evil=3))
    assert "holds no weights of a policy" in refused(path, tmp_path)


def test_the_environment_must_be_named(capsys):
    assert main(["import", "sb3", str(RECORDED / "ppo.zip")]) == 1
    assert "no --env given; name the environment that the agent plays" in capsys.readouterr().err
