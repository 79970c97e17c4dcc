"""Tests of maps: on an agent of which it is known what matters, a true map wins and a wrong one loses."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rl_interp.analysis.saliency_evaluation import Scores
from rl_interp.analysis.saliency_table import sentence
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.saliency import Preference
from rl_interp.saliency.evaluation.controls import CONTROLS
from rl_interp.saliency.evaluation.deletion import SHARES, by_square, changes, ranks, square_side
from rl_interp.saliency.evaluation.randomisation import cascade, similarity

RNG = np.random.default_rng(0)


class Spot(Agent):
    """Its Q-value is the brightness of one square, through two layers."""

    hook_points: dict[str, HookPoint] = {}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.near, self.far = nn.Linear(24 * 24, 8, bias=False), nn.Linear(8, 2)
        with torch.no_grad():
            where = torch.zeros(24, 24)
            where[4:6, 10:12] = 1
            self.near.weight.copy_(where.flatten().expand(8, -1))
            self.far.weight.fill_(1)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        return PolicyOutput(q_values=self.far(self.near(obs.float().flatten(1) / 255).relu()))


@pytest.fixture
def obs() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(50, 256, (1, 1, 24, 24), np.uint8))


def test_squares_are_ranked_by_their_mean_size():
    maps = np.zeros((1, 25, 24))
    maps[0, 4, 10], maps[0, 24, 0] = -3, 2
    assert square_side(25, 24) == 2
    assert by_square(maps)[0, 2, 5] == 3 / 4
    assert by_square(maps)[0, 12, 0] == 2 / 2, "squares at the edge are smaller"
    assert ranks(maps)[0].reshape(13, 12)[12, 0] == 0
    assert sorted(ranks(maps)[0]) == list(range(13 * 12))


def test_deleting_what_matters_changes_all_and_what_does_not_nothing(obs):
    true = np.zeros((2, 24, 24))
    true[0, 4:6, 10:12] = 1
    true[1, 4:6, 10:12] = -1
    true[1] += 1  # everything else
    black = torch.zeros_like(obs)
    deletion, insertion, whole = changes(Spot(), obs, Preference(0), (), ranks(true), black)
    assert whole > 0
    np.testing.assert_allclose(deletion / whole, [1, 0], atol=1e-6)
    np.testing.assert_allclose(insertion / whole, [0, 1], atol=1e-6)
    assert len(SHARES) == 5


def test_controls_know_nothing_of_the_agent(obs):
    before = obs.clone()
    before[0, 0, 7, 8] = 255 - before[0, 0, 7, 8]
    maps = {name: control(obs, before, 0)[0] for name, control in CONTROLS.items()}
    assert np.argwhere(maps["frame difference"]).tolist() == [[7, 8]]
    assert np.unravel_index(maps["centre blob"].argmax(), (24, 24)) == (11, 11)
    flat = torch.full_like(obs, 90)
    assert not CONTROLS["edges"](flat, flat, 0).any()
    assert all(each.shape == (24, 24) for each in maps.values())


def test_cascading_randomisation_begins_at_the_last_layer(obs):
    agent = Spot()
    with torch.no_grad():
        agent.far.weight.copy_(torch.arange(16.0).reshape(2, 8))
    shares, copies = zip(
        *((share, {k: v.clone() for k, v in each.state_dict().items()}) for share, each in cascade(agent, 2)),
        strict=True,
    )
    assert shares == (0.5, 1.0)
    assert not torch.equal(copies[0]["far.weight"], agent.far.weight)
    assert torch.equal(copies[0]["near.weight"], agent.near.weight)
    assert not torch.equal(copies[1]["near.weight"], agent.near.weight)


def sparse(rng: np.random.Generator, density: float) -> np.ndarray:
    return rng.exponential(size=(40, 40)) * (rng.random((40, 40)) < density)


def test_only_the_order_of_sizes_counts():
    mine = RNG.normal(size=(9, 9))
    assert similarity(mine, -np.sqrt(np.abs(mine))) == pytest.approx(1)
    assert np.isnan(similarity(mine, np.zeros((9, 9))))
    assert np.isnan(similarity(mine, np.ones((9, 9))))


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 1.0])
def test_maps_that_have_nothing_to_do_with_each_other_are_unlike_however_few_pixels_matter(density):
    found = [similarity(sparse(RNG, density), sparse(RNG, density)) for _ in range(50)]
    assert abs(np.mean(found)) < 0.02


def test_maps_that_share_half_of_what_matters_are_alike():
    mine, own, other = (np.zeros(1000) for _ in range(3))
    mine[:100], own[:50], other[50:100] = (RNG.random(size) + 1 for size in (100, 50, 50))
    half = similarity(mine, own + np.roll(other, 500))
    assert half == pytest.approx(0.44, abs=0.05)
    assert similarity(mine, mine + 1e-6 * RNG.random(1000)) == pytest.approx(1), "rounding has no order"


def scores(better: float) -> Scores:
    noise = np.random.default_rng(0).normal(0, 0.01, (2, 12))
    found = Scores(np.repeat(np.arange(6), 2))
    found.by_test["insertion", "black"] = {"map": noise[0] - better, "random": noise[1]}
    return found


def test_a_method_beats_a_control_by_an_interval_over_episodes():
    assert scores(0.1).beats(("insertion", "black"), "map", "random"), "less is better in insertion"
    assert not scores(0.0).beats(("insertion", "black"), "map", "random")
    estimate = scores(0.1).estimate(("insertion", "black"), "map")
    assert estimate.low < -0.1 + 0.02
    assert estimate.high > estimate.low


def test_the_sentence_says_who_won():
    result = {
        "beats_all_controls": ["lrp"],
        "beats_all_controls_in": {"lrp": ["deletion black", "counterfactual action"], "rise": []},
        "tests": ["deletion black", "counterfactual action"],
        "substrates_agree": {"deletion": 0.8, "insertion": None},
    }
    said = sentence(result, "mine")
    assert "On mine, lrp beats every control in deletion and insertion on every substrate. lrp tells what" in said
    none = result | {"beats_all_controls": [], "beats_all_controls_in": {"lrp": [], "rise": []}}
    assert "no method beats every control in any test. No method tells" in sentence(none, "mine")
