"""Reading what the published package saved, without running what a stranger put there."""

import pickle
import sys
import types
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from rl_interp.agents.pretrained.dreamerv3 import agent_of, read_checkpoint
from rl_interp.app.cli import main
from rl_interp.core.envs import env_config
from rl_interp.core.errors import RunError

RECORDING = Path(__file__).parents[1] / "oracles" / "published_dreamerv3" / "vector.npz"
MINIGRID = env_config("MiniGrid-Empty-5x5-v0")


@pytest.fixture
def arrays():
    """The published names with weights for MiniGrid: those of the recording, but where observations and actions
    have other sizes."""
    with np.load(RECORDING) as recorded:
        weights = {n.removeprefix("weights/"): recorded[n] for n in recorded if n.startswith("weights/")}
    rng = np.random.default_rng(0)
    places = 7 * 7 * 21
    wanted = {
        "agent/wm/rssm/img_in/kernel": (16 + 7, 16),
        "agent/wm/enc/mlp/h0/kernel": (places, 16),
        "agent/wm/dec/mlp/dist_vector/out/kernel": (16, places),
        "agent/wm/dec/mlp/dist_vector/out/bias": (places,),
        "agent/task_behavior/ac/actor/dist_out/out/kernel": (16, 7),
        "agent/task_behavior/ac/actor/dist_out/out/bias": (7,),
    }
    assert wanted.keys() <= weights.keys()
    return weights | {name: rng.standard_normal(shape).astype(np.float32) for name, shape in wanted.items()}


@pytest.fixture
def optax_state(monkeypatch):
    """A named tuple that pickles as one of optax's."""
    module = types.ModuleType("optax._src.transform")
    module.ScaleByAdamState = namedtuple("ScaleByAdamState", "count mu nu", module="optax._src.transform")
    for name in ("optax", "optax._src", "optax._src.transform"):
        monkeypatch.setitem(sys.modules, name, module)
    return module.ScaleByAdamState(np.int32(3), {"agent/x": np.ones(2)}, {})


def saved(path, agent, step=1234):
    path.write_bytes(pickle.dumps({"step": step, "agent": agent, "_timestamp": 1.0}))
    return path


def test_a_checkpoint_becomes_a_run(tmp_path, arrays, optax_state, capsys):
    optimiser = {"agent/wm/model_opt/state": [(np.asarray(optax_state.count),), (optax_state.mu,)]}
    path = saved(tmp_path / "checkpoint.ckpt", arrays | optimiser)
    command = ["import", "dreamerv3", str(path), "--env", MINIGRID.id, "--name", str(tmp_path / "run")]
    assert main([*command, "--json"]) == 0
    assert '"size": "debug"' in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), "--episodes", "2", "--json"]) == 0
    step, read = read_checkpoint(path)
    assert step == 1234
    agent = agent_of(read, MINIGRID, path)
    theirs = torch.from_numpy(arrays["agent/wm/rssm/gru/kernel"].T.copy())
    assert torch.equal(agent.world_model.rssm.gru.linear.weight, theirs)


def test_an_optimisers_named_tuples_are_read_over(tmp_path, arrays, optax_state):
    path = tmp_path / "checkpoint.ckpt"
    path.write_bytes(pickle.dumps({"step": 1, "agent": arrays | {"opt": (optax_state._replace(count=3),)}}))
    assert read_checkpoint(path)[1].keys() == arrays.keys()


class _Attack:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


def test_a_checkpoint_with_code_is_refused_by_name_and_the_code_not_run(tmp_path, arrays):
    path = saved(tmp_path / "checkpoint.ckpt", arrays | {"agent/evil": _Attack()})
    with pytest.raises(
        RunError, match=r"it holds builtins\.exec, which is neither a numpy array nor a plain container"
    ):
        read_checkpoint(path)
    with pytest.raises(RunError, match="it holds pathlib"):
        read_checkpoint(saved(path, {"agent/x": Path("/")}))


def test_what_is_no_checkpoint_is_refused(tmp_path, arrays, capsys):
    path = tmp_path / "checkpoint.ckpt"
    path.write_bytes(b"no pickle")
    with pytest.raises(RunError, match="is no checkpoint of dreamerv3"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(RunError, match="holds no agent"):
        read_checkpoint(path)
    assert main(["import", "dreamerv3", str(path), "--name", str(tmp_path / "run")]) == 1
    assert "holds no agent" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_agent_for_something_else_is_refused(arrays):
    with pytest.raises(RunError, match="agent with 7 actions; CrafterReward-v1 has 17"):
        agent_of(arrays, env_config("CrafterReward-v1"), "it")
    wide = arrays | {"agent/wm/rssm/initial": np.zeros(99, np.float32)}
    with pytest.raises(RunError, match="a GRU of 99, layers of 16 and heads 2 deep, which is none of the sizes"):
        agent_of(wide, MINIGRID, "it")
    pixels = arrays | {"agent/wm/enc/cnn/s0res/kernel": np.zeros((4, 4, 3, 8), np.float32)}
    with pytest.raises(RunError, match="sees pixels; MiniGrid-Empty-5x5-v0 gives symbols"):
        agent_of(pixels, MINIGRID, "it")
    with pytest.raises(RunError, match="no weights named"):
        agent_of({"agent/x": np.zeros(1)}, MINIGRID, "it")
