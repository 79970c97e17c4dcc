"""The commands on DreamerV3 agents, of symbols and of pixels, as on the others, and on their world models."""

from pathlib import Path

import pytest
from selection import in_full

SMALL = (
    "--size debug --num-envs 2 --batch-size 2 --batch-length 8 --imag-horizon 4 --learning-starts 64 --train-ratio 1 "
    "--eval-episodes 2 --precision fp32"
)
EMPTY = f"train dreamerv3 --env MiniGrid-Empty-5x5-v0 --agent-steps 200 {SMALL}"
CRAFTER = f"train dreamerv3 --env CrafterReward-v1 --env.length 40 --agent-steps 160 {SMALL}"


@pytest.fixture(scope="module")
def agents(home):
    from rl_interp.app import cli

    for command in (f"{EMPTY} --name empty", f"{CRAFTER} --name dreamt"):
        assert cli.main([*command.split(), "--json"]) == 0


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize("agent", ["empty", "dreamt"])
class TestAnyAgent:
    def test_evaluation_agrees_with_itself(self, run, agent):
        status, result, _ = run(f"evaluate {agent} --episodes 2")
        assert status == 0
        assert run(f"evaluate {agent} --episodes 2")[1]["returns"] == result["returns"]

    @pytest.mark.full
    def test_an_autoencoder_is_fitted_on_the_latent(self, run, place, agent):
        hook = {"empty": "stoch", "dreamt": "deter"}[agent]
        assert run(f"collect {agent} --hook {hook} --samples 200")[0] == 0
        status, _, error = run(f"sae fit {agent} --hook {hook} --latents 32 --k 4 --epochs 1 --episodes 0 --name found")
        assert status == 0, error
        status, measured, error = run("sae evaluate found --episodes 2")
        assert status == 0, error
        assert set(measured["controls"]) == {"original", "spliced", "zero", "mean", "resample"}
        status, reported, error = run("sae report found --top 2 --maps 2")
        assert status == 0, error
        assert Path(reported["report"]).stat().st_size > 10_000

    @pytest.mark.full
    def test_an_encoder_of_pictures_is_mapped_and_one_of_vectors_refused(self, run, place, agent):
        layers = {"empty": "", "dreamt": "--hooks encoder.s0.post encoder.s3.post"}[agent]
        status, result, error = run(f"maps {agent} {layers} --states 8 --clusters 3")
        if agent == "empty":
            assert status == 1
            assert "has no layer with positions to map" in error
        else:
            assert status == 0, error
            assert {"encoder.s0.post", "encoder.s3.post"} <= set(result["pictures"])
            assert "| encoder.s0.post |" in Path(result["table"]).read_text()

    @pytest.mark.parametrize("target", [*in_full("advantage", "value"), "unit:deter:3"])
    def test_saliency_explains_policy_value_and_a_latent(self, run, place, agent, target):
        status, result, error = run(f"saliency {agent} --target {target} --steps 3 --output film.mp4")
        assert status == 0, error
        assert result["frames"] == 3

    @pytest.mark.full
    def test_imagined_futures_are_filmed(self, run, place, agent):
        command = f"imagine {agent} --context 2 --horizon 3 --clamp deter:3=0.9 --times 1 --output dream.mp4"
        status, result, error = run(command)
        assert status == 0, error
        plain, changed = (result["futures"][name] for name in ("imagined", "imagined, with intervention"))
        for future in (plain, changed):
            assert len(future["picture_error_imagined"]) == len(future["expected_rewards"]) == 3
        assert plain["picture_error_imagined"][0] == changed["picture_error_imagined"][0]
        assert plain["picture_error_imagined"][1] != changed["picture_error_imagined"][1]
        assert result["interventions"][0] == {
            "kind": "clamp", "at": "deter", "units": [3], "value": 0.9, "phase": "imagine", "times": [1]
        }  # fmt: skip
        for written in (result["video"], result["still"], result["latent"]["plot"]):
            assert Path(written).stat().st_size > 3_000


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(("agent", "hooks", "concept"), [("empty", "deter stoch", "x"), ("dreamt", "embed", "x")])
@pytest.mark.full
def test_probes_stand_beside_their_controls(run, place, agent, hooks, concept):
    status, result, error = run(f"probe {agent} --hooks {hooks} --samples 400")
    assert status == 0, error
    names = hooks.split()
    controls = {*(f"random network: {name}" for name in names), "raw observation", "shuffled labels"}
    assert set(result["means"]) == controls | set(names)
    table = Path(result["table"]).read_text()
    assert f"| {concept} | R² |" in table
    status, found, error = run(f"erase {agent} --hook {names[0]} --concepts {concept} --samples 400 --episodes 2")
    assert status == 0, error
    assert set(found["by_concept"]) == {concept}


@pytest.mark.usefixtures("agents")
@pytest.mark.full
def test_training_says_how_it_went_and_resumes(run, place):
    status, result, _ = run(f"{EMPTY} --name fresh")
    assert status == 0
    assert (result["agent_steps"], result["updates"]) == (200, 9)
    assert run(f"{EMPTY} --name fresh")[1]["evaluation"] == result["evaluation"]


@pytest.mark.usefixtures("agents")
@pytest.mark.full
def test_phases_and_the_bonus_are_flags(run, place):
    command = f"{EMPTY} --cbet --cbet.width 4096 --pretrain --name explorer"
    status, _, error = run(command)
    assert status == 0, error
    assert "reset_probability: 0.001" in Path("runs/explorer/config.yaml").read_text()
    status, _, error = run(f"{EMPTY} --explorer explorer --name transferred")
    assert status == 0, error
    assert run("evaluate transferred --episodes 1")[0] == 0
    assert run(f"{CRAFTER} --cbet --cbet.width 4096 --name counted")[0] == 0
    assert run("imagine transferred --context 1 --horizon 2 --output dream.mp4 --free")[0] == 0


@pytest.mark.usefixtures("agents")
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("train dreamerv3 --size huge", "unknown size 'huge'"),
        (f"{EMPTY} --name empty --batch-length 16", "not 16 as given"),
        (f"{EMPTY} --explorer dreamt --name new", "transfer between environments that share them"),
        (f"{EMPTY} --explorer tiny --name new", "transfer needs a pre-trained dreamerv3 run"),
        ("imagine tiny --output dream.mp4", "holds an agent without a world model"),
        ("imagine empty --horizon 5000 --output dream.mp4", "lower the horizon or skip less"),
        ("imagine empty --horizon 2 --clamp deter=1 --output dream.mp4", "it has the form HOOK:UNIT=VALUE"),
        ("imagine empty --horizon 2 --clamp deter:99=1 --output dream.mp4", "units [99] were given for 'deter'"),
        ("imagine empty --horizon 2 --clamp detr:9=1 --output dream.mp4", "unknown hook point 'detr'"),
        ("imagine empty --horizon 0 --output dream.mp4", "horizon=0 given"),
        ("probe empty --hooks detr --samples 100", "unknown hook point 'detr'"),
        ("saliency empty --target unit:deter --steps 1", "a unit is named as unit:HOOK:N"),
        ("saliency empty --target unit:deter:99 --steps 1", "which has 0 to 31"),
    ],
)
def test_bad_input_gets_one_sentence(run, place, command, sentence):
    status, _, error = run(command)
    assert status not in (0, None)
    assert sentence.lower() in error.lower()
    assert "Traceback" not in error
