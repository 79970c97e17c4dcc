"""The commands on a maze agent, and feature maps on agents of other grids."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from selection import in_full

from rl_interp.analysis.sae.runs import load_sae
from rl_interp.analysis.sae.states import states_of
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.interventions import as_hooks
from rl_interp.core.replay import replay
from rl_interp.sae import ClampFeature

SMALL = "--channels 4 4 --hidden 16 --num-envs 4 --unroll 10 --minibatches 1 --eval-episodes 2 --precision fp32"
MAZE = f"train impala --env rl_interp/Maze-v0 --env.max-side 7 --env.region 5 --agent-steps 400 {SMALL} --actors 0"


@pytest.fixture(scope="module")
def agents(home):
    from rl_interp.app import cli

    small = SMALL.replace("--channels 4 4 ", "")
    for command in (
        f"{MAZE} --name mouse",
        f"train impala --env MiniGrid-Unlock-v0 --agent-steps 400 {small} --lstm 16 --name grid --actors 0",
        f"train impala --env CrafterReward-v1 --env.length 40 --agent-steps 160 {SMALL} --name player --actors 0",
    ):
        assert cli.main([*command.split(), "--json"]) == 0


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(
    ("agent", "truth"), [("mouse", "steps to the cheese"), *in_full(("grid", "object"), ("player", "material"))]
)
def test_layers_are_mapped_beside_their_controls(run, place, agent, truth):
    status, result, error = run(f"maps {agent} --states 24 --clusters 5")
    assert status == 0, error
    assert all(Path(path).stat().st_size > 5_000 for path in (result["sheet"], *result["pictures"].values()))
    for of_layer in result["information"].values():
        assert set(of_layer) == {"trained", "random network", "raw pixels"}
    assert truth in Path(result["table"]).read_text()
    names = json.loads(Path(result["result"]).read_text())[next(iter(result["information"]))]["trained"]["names"]
    assert len(names) == 5


@pytest.mark.usefixtures("agents")
def test_goals_of_several_agents_make_one_table(run, place):
    status, result, error = run("maze goals mouse --episodes 12 --output goals")
    assert status == 0, error
    (row,) = result["agents"]
    assert row["region"] == 5
    assert {"value", "low", "high", "count"} == set(row["p_cheese"])
    assert "| mouse | region 5 |" in Path(result["table"]).read_text()
    assert Path(result["plot"]).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.usefixtures("agents")
def test_a_study_trains_an_agent_a_region(run, place):
    status, result, error = run("study maze --regions 1 0 --agent-steps 2048 --episodes 8 --name study --jobs 1")
    assert status == 0, error
    assert [row["region"] for row in result["agents"]] == [1, 0]
    assert Path("runs/study/impala-maze-anywhere-seed0.json").exists()
    assert Path(result["table"]).read_text().count("anywhere") == 2


@pytest.mark.usefixtures("agents")
def test_fields_and_retargeting_are_drawn(run, place):
    status, result, error = run(
        "maze field mouse --side 7 --add cheese:block2.res1.sum=-1 --clamp block1.res1.sum:2=1.5"
    )
    assert status == 0, error
    assert Path(result["picture"]).stat().st_size > 20_000
    assert result["cells"] == 30
    status, result, error = run("maze retarget mouse --hook block2.res1.sum --channel 1 --side 5")
    assert status == 0, error
    assert Path(result["picture"]).stat().st_size > 20_000


@pytest.mark.usefixtures("agents")
@pytest.mark.full
def test_steering_has_its_controls(run, place):
    status, result, error = run("maze steer mouse --hook block2.res1.sum --mazes 12 --episodes 4 --units 1")
    assert status == 0, error
    for kinds in result["vectors"].values():
        assert set(kinds) == {"vector", "random direction", "another maze's"}
        assert {"-1", "1"} <= set(kinds["vector"])
    assert {"found, at their mean", "random, at their mean"} <= result["searches"]["channels"]["held_out"].keys()
    assert len(result["played"]) == 4
    assert Path(result["plot"]).stat().st_size > 10_000


@pytest.mark.usefixtures("agents")
def test_changing_a_feature_at_recorded_states_is_what_clamping_it_does(run, place):
    hook = "block2.res1.post"  # beside it runs the residual arm, which is the observation's own
    assert run(f"collect mouse --hook {hook} --samples 300")[0] == 0
    assert run(f"sae fit mouse --hook {hook} --latents 16 --k 3 --epochs 1 --episodes 0 --name found")[0] == 0
    fitted = load_sae("found")
    held_out = np.unique(fitted.store.column("episode")[fitted.held_out_rows // fitted.store.positions])
    obs = np.concatenate([each.obs for each in replay(fitted.agent.env, fitted.store, held_out)])
    on = states_of(fitted, fitted.held_out_rows, len(obs))
    assert on is not None
    active = fitted.sae.encode(on.x.flatten(0, 1))[:, 2].view(on.x.shape[:2])
    moved = on.head(on.x + (1.5 - active)[..., None] * fitted.sae.W_dec[2])
    clamp = ClampFeature(hook, sae=fitted.sae, feature=2, value=1.5)
    with torch.no_grad():
        clamped = run_with_hooks(fitted.agent.agent, torch.from_numpy(obs), hooks=as_hooks([clamp])).preferences
    torch.testing.assert_close(moved, clamped, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("agents")
@pytest.mark.slow
def test_what_serves_other_agents_serves_maze_agents(run, place):
    assert run("collect mouse --hook block2.res2.sum --samples 900")[0] == 0
    status, _, error = run(
        "sae fit mouse --hook block2.res2.sum --latents 32 --k 4 --epochs 1 --episodes 0 --name found"
    )
    assert status == 0, error
    status, measured, error = run("sae evaluate found --episodes 2 --random-network")
    assert status == 0, error
    assert "kind: dead end" in measured["coverage"]["concepts"]
    assert {"features", "neurons", "random network's dictionary"} <= measured["coverage"]["means"].keys()
    assert measured["policy_kl"] > 0
    status, tested, error = run("sae test found --count 2 --states 40")
    assert status == 0, error
    assert len(tested["outcomes"]) == 2
    status, reported, error = run("sae report found --top 2 --clips 2 --maps 2")
    assert status == 0, error
    data = json.loads(re.search(r'application/json">(.*?)</script>', Path(reported["report"]).read_text(), re.S)[1])
    assert {"kind: dead end", "way: to the cheese"} <= {concept["name"] for concept in data["concepts"]}
    assert any(feature["clamp"] for feature in data["features"])
    framed = {str(moment["frame"] % data["positions"]) for f in data["features"] for moment in f["top"]}
    assert framed <= data["boxes"].keys(), "each position is framed"
    assert len(data["boxes"]) == data["positions"]
    height, width = data["screens"]["height"], data["screens"]["width"]
    for left, top, right, bottom in data["boxes"].values():
        assert left < right <= width + (right - left)
        assert top < bottom <= height + (bottom - top)
    status, result, error = run("maze steer mouse --hook block2.res2.sum --mazes 8 --episodes 2 --units 1 --sae found")
    assert status == 0, error
    assert len(result["searches"]["features"]["scores"]) == 32
    status, _, error = run("saliency mouse --target value --steps 3 --output film.mp4")
    assert status == 0, error
    status, result, error = run("probe mouse --hooks fc.post --samples 300")
    assert status == 0, error
    assert "| row | R² |" in Path(result["table"]).read_text()
    status, result, error = run("erase mouse --hook fc.post --concepts row --samples 300 --episodes 0")
    assert status == 0, error
    assert "row" in result["by_concept"]


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train impala --env rl_interp/Maze-v1", "unknown environment 'rl_interp/Maze-v1'"),
        ("train impala --env rl_interp/Maze-v0 --env.max-side 8", "max_side=8 given; it is an odd number from 3 to 25"),
        ("train impala --env rl_interp/Maze-v0 --lstm -1", "lstm=-1 given; it is a width, or 0"),
        ("maps mouse --hooks fc.post", "'fc.post' has no positions; give one of block1.conv"),
        ("maps mouse --states 1 --clusters 5000", "5000 clusters asked of 1024 positions"),
        ("maps tiny", "shows no cells with ground truth"),
        ("maze goals grid --episodes 2", "is an agent in MiniGrid-Unlock-v0, and this is about mazes"),
        ("maze field mouse --side 4", "min_side=4 given; it is an odd number"),
        ("maze field mouse --add cheese=2", "it has the form cheese:HOOK=SCALE"),
        ("maze field mouse --clamp fc.post=2", "it has the form HOOK:UNIT=VALUE"),
        ("maze retarget mouse --hook fc.post --channel 0", "'fc.post' has no positions"),
        ("maze retarget mouse --hook block2.conv --channel 99", "channel 99 given for 'block2.conv'"),
        ("maze steer mouse --hook block2.conv --units 9 --mazes 8", "count=9 asked of 4 units"),
    ],
)
def test_bad_input_gets_one_sentence(run, place, command, sentence):
    status, _, error = run(command)
    assert status not in (0, None)
    assert sentence in error
    assert "Traceback" not in error


@pytest.mark.usefixtures("agents")
@pytest.mark.full
def test_saliency_is_judged_by_the_maze(run, place):
    status, result, error = run("maze saliency mouse --mazes 3 --side 7")
    assert status == 0, error
    assert set(result["methods"]) == {
        "perturbation", "perturbation, a mask a cell", "greydanus", "gradient", "integrated-gradients",
        "input-gradient", "smoothgrad", "guided-backprop", "grad-cam", "occlusion", "sarfa",
    }  # fmt: skip
    for both in result["methods"].values():
        assert set(both) == {"trained", "shuffled weights"}
        assert all(0 <= each["value"] <= 1 for scores in both.values() for each in scores.values())
        assert all(each["low"] is None for scores in both.values() for each in scores.values()), "of three mazes"
    assert "| gradient | shuffled weights |" in Path(result["table"]).read_text()
    status, _, error = run("maze saliency grid")
    assert status == 1
    assert "give a maze agent" in error
