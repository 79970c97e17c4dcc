"""The ordinary commands on a diffusion policy: training, dictionaries and probes of a denoising step, saliency."""

from pathlib import Path

import pytest

from rl_interp.app import cli


@pytest.fixture(scope="module")
def agent(home) -> str:
    command = (
        "train beso --name ways --layers 1 --width 16 --heads 2 --hidden 16 --window 2 --demonstrations 40 "
        "--agent-steps 3000 --warmup 100 --eval-episodes 4 --env.spread 0 --env.start -0.6"
    )
    assert cli.main([*command.split(), "--json"]) == 0
    return "ways"


@pytest.mark.full
def test_a_dictionary_of_one_denoising_step_tells_the_goal_and_what_it_does_to_the_action(run, agent):
    status, _, error = run(f"collect {agent} --hook block0.action@1 --samples 400")
    assert status == 0, error
    sizes = "--latents 32 --k 8 --epochs 4 --episodes 2"
    status, fitted, error = run(f"sae fit {agent} --hook block0.action@1 {sizes} --name features")
    assert status == 0, error
    assert fitted["action_nmse"] >= 0
    assert not {"policy_kl", "action_agreement"} & fitted.keys(), "they are of probabilities, which there are none of"
    status, found, error = run("sae evaluate features --episodes 2")
    assert status == 0, error
    assert {"goal_above", "goal_below"} & set(found["coverage"]["concepts"])  # of few episodes, one may have no yes
    status, found, error = run("sae report features")
    assert status == 0, error
    page = Path(found["report"]).read_text()
    assert "error of the action (NMSE)" in page
    assert "same greedy action" not in page
    status, _, error = run("sae test features")
    assert status == 1
    assert "is of an agent with continuous actions, and hypotheses are about which action is chosen" in error


@pytest.mark.full
def test_probes_read_single_denoising_steps(run, agent):
    status, found, error = run(f"probe {agent} --hooks block0.action@0 block0.state@2 --samples 300")
    assert status == 0, error
    assert {"block0.action@0", "block0.state@2", "raw observation", "shuffled labels"} <= found["means"].keys()


@pytest.mark.full
def test_saliency_explains_the_way_that_the_action_goes_unless_told_otherwise(run, agent):
    status, found, error = run(f"saliency {agent} --steps 3")
    assert status == 0, error
    assert found["target"] == "chosen"
    assert Path(found["still"]).stat().st_size > 1_000
    status, found, error = run(f"saliency {agent} --steps 3 --target q:dy")
    assert status == 0, error
