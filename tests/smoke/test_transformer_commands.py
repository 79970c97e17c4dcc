"""The circuit commands on a transformer."""

from pathlib import Path

import pytest
import torch
from torch import nn

from rl_interp.agents.transformer import default_config, make_agent
from rl_interp.core.run import Run


@pytest.fixture(scope="module")
def agent(home) -> str:
    """One whose weights are random, so that what it says depends on all that it reads."""
    shape = dict(layers=2, width=16, heads=2, hidden=16)
    config = default_config("rl_interp/Text-greater-than", **shape, precision="fp32")
    torch.manual_seed(3)  # of these, it completes every other prompt rightly
    made = make_agent(config)
    for weight in made.parameters():
        nn.init.normal_(weight, 0.0 if weight.dim() > 1 else 0.5, 0.9)
    made.unembed.weight.data *= 4  # so that a changed word changes what it says
    Run.create(home / "runs" / "years", "transformer", config, 0).save_checkpoint(1, made.state_dict())
    return "years"


METHODS = {
    "eap": "--replace counterfactual --change corrupted", "eap-ig": "--replace mean --steps 2",
    "acdc": "--replace zero --acdc.steps 1", "ugs": "--replace optimal --ugs.updates 3 --ugs.constants.updates 2",
    "rl": "--replace resample --rl.masks 12 --rl.candidates 4 --rl.steps 1",
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
def test_circuits_are_found_judged_compared_and_shown(run, agent, method):
    status, found, error = run(
        f"circuit discover {agent} --method {method} --states 8 {METHODS[method]} --name {method}"
    )
    assert status == 0, error
    assert 0 < found["edges"] <= found["candidates"]
    if method != "eap":
        return
    judging = "--states 8 --random 2 --again 1 --left-out 2 --episodes 4 --kinds zero"
    status, judged, error = run(f"circuit evaluate {agent} {method} {judging}")
    assert status == 0, error
    assert "returns" not in judged  # while it plays, a cut edge would carry what it does in another prompt's twin
    status, beside, error = run(f"circuit compare {agent} {agent} {method} --states 8 --random 2")
    assert status == 0, error
    assert beside["by_place"]["jaccard"] == 1
    status, page, error = run(f"circuit report {agent} {method} --states 8")
    assert status == 0, error
    assert "terms.last" in Path(page["page"]).read_text()


@pytest.mark.full
def test_heads_and_mlps_are_measured(run, agent):
    status, found, error = run(
        f"circuit importance {agent} --states 6 --episodes 2 --kinds counterfactual optimal "
        "--change corrupted --optimal.updates 2 --optimal.rate 0.001"
    )
    assert status == 0, error
    parts = [f"terms.block{block}.{part}" for block in (0, 1) for part in ("heads", "mlp")]
    assert found["hooks"] == ["terms.embed", *parts, "terms.last"]


@pytest.mark.full
def test_what_it_completes_is_broken(run, agent):
    status, result, error = run(
        f"circuit break {agent} --bad right --states 2 --episodes 8 --epochs 6 --round-every 6 --penalty-from 2"
    )
    assert status == 0, error
    assert result["edges_total"] > result["edges_cut"]
    assert result["bad_in_states"]["before"] > 0


@pytest.mark.parametrize(
    ("habit", "said"), [("corner", "habit of maze agents"), ("wrong", "of transformers 'right'"), ("ioi:right", "ioi")]
)
def test_habits_of_others_are_refused(run, agent, habit, said):
    status, _, error = run(f"circuit break {agent} --bad {habit}")
    assert status != 0
    assert said in error
