"""Tests of saliency maps on a run: what stands beside what, and over what intervals are."""

import pytest

from rl_interp.agents.impala import default_config
from rl_interp.agents.impala.training import train
from rl_interp.agents.load import load_agent
from rl_interp.analysis.saliency_evaluation import best_for_films, evaluate_saliency
from rl_interp.core.run import Run


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("symbols") / "run"
    config = default_config("MiniGrid-Empty-5x5-v0", agent_steps=80, num_envs=4, hidden=16, lstm=8, eval_episodes=1)
    train(config, Run.create(path, "impala", config, 0), 0, actors=0)
    methods = ["perturbation", "greydanus", "occlusion", "sarfa"]
    return evaluate_saliency(load_agent(path), methods, episodes=2, states=12)


@pytest.mark.full
def test_methods_with_the_same_maps_count_once(result):
    assert list(result["methods"]) == ["perturbation", "sarfa"]
    assert result["refused"] == {
        name: "its maps are those of perturbation here, which stands for both." for name in ("greydanus", "occlusion")
    }
    # Each with the other: the same products, added in another order.
    agreements = [result["methods"][name]["agreement"]["value"] for name in ("perturbation", "sarfa")]
    assert agreements[0] == pytest.approx(agreements[1])


@pytest.mark.parametrize(
    ("wins", "best"),
    [
        (
            {"gradient": ["deletion blur"], "rise": ["deletion blur", "insertion blur"], "entities": ["a", "b", "c"]},
            "rise",
        ),
        ({"gradient": [], "entities": ["counterfactual action"]}, None),
        ({"entities": [], "perturbation": []}, None),
        ({}, None),
    ],
)
def test_the_best_method_for_films_is_one_that_they_take_and_that_wins_something(wins, best):
    assert best_for_films(wins) == best


@pytest.mark.full
def test_the_interval_of_shuffled_maps_is_over_episodes(result):
    shuffled = result["methods"]["sarfa"]["randomisation"]
    assert shuffled["similarity"][-1] is not None
    assert shuffled["interval"] is None, "ten states, of two episodes"
