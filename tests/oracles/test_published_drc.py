"""DRC beside a re-creation in Flax of the published network, from the files that Flax saved it in."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rl_interp.agents.load import load_agent
from rl_interp.agents.pretrained.flax_msgpack import Array, read_flax
from rl_interp.agents.pretrained.runs import import_drc
from rl_interp.core.envs import SokobanConfig
from rl_interp.core.errors import RunError, UserError

RECORDED = Path(__file__).parent / "published_drc"
ENV = SokobanConfig(rows=6, columns=5, boxes=1)


@pytest.fixture
def copy(tmp_path):
    """A checkpoint of the recorded network, to be altered."""
    folder = tmp_path / "cp_0000012800"
    shutil.copytree(RECORDED, folder)
    return folder


@pytest.mark.parametrize("watched", [False, True])
def test_an_imported_checkpoint_says_what_flax_says(copy, tmp_path, watched):
    imported = import_drc(copy, ENV, tmp_path / "run")
    sizes = {name: imported[name] for name in ("agent_steps", "layers", "ticks", "channels")}
    assert sizes == {"agent_steps": 12800, "layers": 2, "ticks": 3, "channels": 4}
    agent = load_agent(tmp_path / "run", device="cpu").agent
    if watched:
        agent.layers[1].h.register_forward_hook(lambda module, args, out: None)
    with np.load(RECORDED / "said.npz") as said:
        with torch.no_grad():
            out = agent.unroll(torch.from_numpy(said["obs"]), (), torch.from_numpy(said["first"]))
        for ours, theirs in ((out.logits, "logits"), (out.value, "values"), (out.state[0], "h"), (out.state[1], "c")):
            np.testing.assert_allclose(ours, said[theirs], atol=1e-5)


def test_all_that_flax_wrote_is_read():
    tree = read_flax(RECORDED / "model", "")
    assert set(tree) == {"step", "params", "opt_state"}
    moment = tree["opt_state"]["inner_opt_state"]["1"]["inner_state"]["0"]["mu"]["params"]["actor_params"]
    assert isinstance(moment["Output"]["bias"], Array)
    assert moment["Output"]["bias"].numpy().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("repeats_per_step", 0, "ticks=0 given"),
        ("residual", True, "network with residual True, where that of the published DRCs is False"),
        ("recurrent", {"fence_pad": "same"}, "recurrent.fence_pad 'same', where .* is 'valid'"),
    ],
)
def test_a_network_that_is_not_the_published_is_refused(copy, tmp_path, name, value, message):
    config = json.loads((copy / "cfg.json").read_text())
    config["cfg"]["net"][name] = value
    (copy / "cfg.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        import_drc(copy, ENV, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_boards_of_another_size_and_folders_of_checkpoints_are_refused_by_name(copy, tmp_path):
    with pytest.raises(RunError, match="is for boards of 30 cells, and the environment's have 10 x 10"):
        import_drc(copy, SokobanConfig(), tmp_path / "run")
    with pytest.raises(RunError, match="has no cfg.json; it has the checkpoints cp_0000012800: give one of them"):
        import_drc(copy.parent, ENV, tmp_path / "run")


def test_a_damaged_file_is_refused_whatever_its_bytes(copy, tmp_path):
    rng, whole = np.random.default_rng(0), (RECORDED / "model").read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        (copy / "model").write_bytes(whole[:cut])
        with pytest.raises(RunError, match="give a folder of train-learned-planner's"):
            import_drc(copy, ENV, tmp_path / "run")
    for _ in range(10):
        damaged = bytearray(whole)
        for at in rng.integers(0, 3000, 3):
            damaged[at] = rng.integers(256)
        (copy / "model").write_bytes(damaged)
        try:
            import_drc(copy, ENV, tmp_path / "run")
        except RunError:
            continue
        shutil.rmtree(tmp_path / "run")  # it hit a number that may be any
