"""The commands on IMPALA agents, of symbols and of pixels, as on the DQN."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rl_interp.analysis.sae.pictures import moments_at
from rl_interp.analysis.sae.runs import load_sae
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.replay import revisit

SMALL = "--hidden 16 --lstm 16 --num-envs 4 --unroll 10 --eval-episodes 2 --precision fp32"
SHORT = f"--agent-steps 160 --minibatches 2 {SMALL}"
CRAFTER = f"train impala --env CrafterReward-v1 --env.length 40 --channels 4 8 {SHORT}"
UNLOCK = f"train impala --env MiniGrid-Unlock-v0 --agent-steps 400 {SMALL}"


@pytest.fixture(scope="module")
def agents(home):
    from rl_interp.app import cli

    for command in (f"{UNLOCK} --name unlock --actors 0", f"{CRAFTER} --name crafter --actors 0"):
        assert cli.main([*command.split(), "--json"]) == 0


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize("agent", ["unlock", "crafter"])
class TestAnyAgent:
    def test_evaluation_has_the_environments_own_scores(self, run, agent):
        status, result, _ = run(f"evaluate {agent} --episodes 3")
        assert status == 0
        own = {"unlock": {"success_rate"}, "crafter": {"crafter_score", "achievements"}}[agent]
        assert own <= result.keys()

    @pytest.mark.full
    def test_an_autoencoder_is_fitted_on_a_convolution_and_on_the_lstm(self, run, place, agent):
        hook = {"unlock": "conv2.post", "crafter": "lstm.h"}[agent]
        assert run(f"collect {agent} --hook {hook} --samples 300")[0] == 0
        status, fitted, error = run(
            f"sae fit {agent} --hook {hook} --latents 32 --k 4 --epochs 1 --episodes 0 --name found"
        )
        assert status == 0, error
        assert fitted["policy_kl"] >= 0
        status, measured, _ = run("sae evaluate found --episodes 2")
        assert status == 0
        assert set(measured["controls"]) == {"original", "spliced", "zero", "mean", "resample"}
        status, _, error = run(f"saliency {agent} --target feature:1 --sae found --steps 2 --output film.mp4")
        assert status == 0, error
        fitted = load_sae("runs/found")
        seen = {visit.sample: visit.obs for visit in revisit(fitted.agent.env, fitted.store, np.array([0, 7, 60]))}
        for sample, obs, state in moments_at(fitted, seen):
            _, cache = run_with_cache(fitted.agent.agent, obs, state, names=[hook])
            value, store = (
                cache[hook].detach().movedim(fitted.agent.agent.hook_points[hook].feature_axis, -1),
                fitted.store,
            )
            rows = store.read(sample * store.positions + np.arange(store.positions))
            np.testing.assert_allclose(value.reshape(rows.shape), rows, rtol=1e-3, atol=1e-4)
        status, reported, error = run("sae report found --top 2 --maps 2")
        assert status == 0, error
        assert "logit" in Path(reported["report"]).read_text()
        if hook != "lstm.h":
            status, _, error = run("sae test found")
            assert status == 1
            assert "has a memory" in error
        shutil.copytree(
            f"runs/{agent}", "runs/twin"
        )  # another agent, as far as anybody can tell: it follows the episodes
        assert run(f"sae fit twin --hook {hook} --latents 32 --k 4 --epochs 1 --episodes 0 --name twins")[0] == 0
        status, compared, error = run("sae compare found twins --top 1")
        assert status == 0, error
        assert compared["first"]["best_mean"] == pytest.approx(1, abs=1e-3)

    def test_a_film_is_made_as_of_the_dqn(self, run, place, agent):
        status, result, error = run(f"saliency {agent} --target value --steps 4 --output film.mp4")
        assert status == 0, error
        assert result["frames"] == 4
        assert Path(result["still"]).stat().st_size > 3_000

    @pytest.mark.full
    def test_the_ground_truth_is_probed(self, run, place, agent):
        hook, concept = {"unlock": ("conv2.post", "x"), "crafter": ("fc.post", "drink")}[agent]
        status, result, error = run(f"probe {agent} --hooks lstm.h {hook} --samples 600")
        assert status == 0, error
        assert f"random network: {hook}" in result["means"]
        assert f"| {concept} | R² |" in Path(result["table"]).read_text()
        status, found, error = run(f"erase {agent} --hook lstm.h --concepts {concept} --samples 600 --episodes 0")
        assert status == 0, error
        assert set(found["by_concept"]) == {concept}


@pytest.mark.usefixtures("agents")
@pytest.mark.full
def test_training_says_how_it_went_and_resumes(run, place):
    status, result, _ = run(f"{UNLOCK} --name fresh --actors 1")
    assert status == 0
    assert (result["agent_steps"], result["updates"]) == (400, 10)
    assert set(result["evaluation"]) >= {"mean", "success_rate", "protocol"}
    assert run(f"{UNLOCK} --name fresh --actors 1")[1]["evaluation"] == result["evaluation"]


@pytest.mark.usefixtures("agents")
@pytest.mark.full
def test_phases_and_the_bonus_are_flags(run, place):
    tasks = "MiniGrid-Empty-5x5-v0,MiniGrid-Unlock-v0"
    command = f"train impala --env {tasks} --cbet --cbet.width 4096 --pretrain"
    status, _, error = run(f"{command} --agent-steps 400 {SMALL} --actors 0 --name explorer")
    assert status == 0, error
    status, _, error = run(f"{UNLOCK} --explorer explorer --actors 0 --name transferred")
    assert status == 0, error
    assert run("evaluate transferred --episodes 1")[0] == 0
    assert "reset_probability: 0.001" in Path("runs/explorer/config.yaml").read_text()
    assert run(f"{CRAFTER} --cbet --cbet.width 4096 --actors 0 --name counted")[0] == 0


@pytest.mark.usefixtures("agents")
@pytest.mark.slow
def test_a_study_compares_conditions_and_is_not_run_twice(run, place):
    command = "study cbet --envs MiniGrid-Empty-5x5-v0 --seeds 2 --agent-steps 1920 --name study"
    status, result, error = run(command)
    assert status == 0, error
    _, row = result["result"]
    assert row["condition"] == "cbet"
    assert {"iqm", "interval", "difference", "difference_interval", "excludes_zero"} <= row.keys()
    written = Path("runs/study/impala-empty-5x5-base-seed1.json")
    assert json.loads(written.read_text())["command"].startswith("rl-interp train impala --env MiniGrid-Empty-5x5-v0")
    assert Path(result["plot"]).stat().st_size > 5_000
    before = written.stat().st_mtime_ns
    assert run(command)[1]["result"] == result["result"]
    assert written.stat().st_mtime_ns == before


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train impala --env MiniGrid-Unlok-v0", "Did you mean 'MiniGrid-Unlock-v0'"),
        ("train impala --env Pong", "unknown environment 'Pong'; the nearest are"),
        ("train dqn --env Pendulum-v1", "Pendulum-v1 has continuous actions"),
        ("train impala --pretrain", "pretrain given without a bonus"),
        ("train impala --cbet.form max", "invalid choice"),
        (f"{UNLOCK} --explorer crafter --name new", "transfer between environments that share them"),
        (f"{UNLOCK} --explorer tiny --name new", "transfer needs a pre-trained impala run"),
        (f"{UNLOCK} --explorer nowhere --name new", "unknown run 'nowhere'"),
        (f"{UNLOCK} --ray 127.0.0.1:1 --name new", "no Ray cluster answers at '127.0.0.1:1'"),
        (f"{UNLOCK} --name unlock --seed 5", "already holds a run of which seed is 0, not 5 as given"),
        ("saliency unlock --method gradient --steps 1", "symbols given, which have no gradient"),
        ("saliency unlock --target q:jump --steps 1", "unknown action 'jump'"),
        ("collect unlock --hook lstm.x --samples 10", "unknown hook point 'lstm.x'"),
        ("study cbet --seeds 0", "seeds=0 given"),
        ("study transfer nowhere", "unknown run 'nowhere'"),
    ],
)
def test_bad_input_gets_one_sentence(run, place, command, sentence):
    status, _, error = run(command)
    assert status not in (0, None)
    assert sentence.lower() in error.lower()
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.usefixtures("agents")
def test_self_ablation_trains_an_agent_whose_ablated_stream_can_be_played_and_measured(run, place):
    status, _, error = run(f"{UNLOCK} --self-ablation 8 --name cut --actors 0")
    assert status == 0, error
    status, cut, _ = run("evaluate cut --episodes 2 --ablated")
    assert status == 0
    assert [each["at"] for each in cut["interventions"]] == ["conv1.post", "conv2.post", "fc.post"]
    assert "trained without self-ablation" in run("evaluate unlock --episodes 2 --ablated")[2]
    assert run("collect cut --hook fc.scores --samples 50")[0] == 0
    command = "study self-ablation unlock cut --episodes 2 --samples 200 --latents 16 --ks 2 --epochs 1 --states 8"
    command += " --methods eap-ig acdc ugs --candidates 40 --updates 5"
    status, found, error = run(command)
    assert status == 0, error
    assert found["result"][0]["circuits"].keys() == {"eap-ig", "acdc", "ugs"}
    assert "ablated" in found["result"][1]["conditions"]
    assert found["result"][1]["bits"] == {"conv1": 32, "conv2": 64, "fc": 16}
    assert found["result"][1]["state_information"].keys() == {"agent", "ablated"}
    changed = (place / "runs/study-self-ablation/cut.json").stat().st_mtime_ns
    assert run(command)[1] == found
    assert (place / "runs/study-self-ablation/cut.json").stat().st_mtime_ns == changed
