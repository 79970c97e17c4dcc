"""Saliency maps against their definitions, SciPy's filters, finite differences and a planted truth."""

import warnings

import numpy as np
import pytest
import torch
from map_agents import ANY, SIZE, OneSpot
from scipy.ndimage import gaussian_filter
from torch import Tensor

from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.errors import UserError
from rl_interp.saliency import (
    GREYDANUS,
    METHODS,
    Advantage,
    Gradient,
    IntegratedGradients,
    Perturbation,
    PolicyChange,
    Preference,
    Value,
    ValueChange,
    randomisation_check,
    randomised,
    saliency_map,
)


def score(agent: Agent, image: np.ndarray, chosen: int) -> float:
    q = agent.step(torch.from_numpy(image[None])).q_values[0].detach()
    return float(q[chosen] - q.mean())


def test_perturbation_scores_are_those_of_the_written_out_loop(agent, obs):
    settings = Perturbation(sigma=3, stride=8)
    ours = settings.scores(agent, obs, Advantage())
    assert ours.shape == (3, 5, 5)
    ys, xs = np.mgrid[:SIZE, :SIZE]
    for b in range(3):
        image = obs[b].numpy().astype(np.float64)
        blurred = np.stack([gaussian_filter(plane, 3, mode="mirror", truncate=4) for plane in image])
        chosen = int(agent.step(obs[b : b + 1]).q_values.argmax())
        for i in range(5):
            for j in range(5):
                mask = np.exp(-0.5 * ((ys - 8 * i) ** 2 + (xs - 8 * j) ** 2) / 9)
                mask[(abs(ys - 8 * i) > 12) | (abs(xs - 8 * j) > 12)] = 0
                drop = score(agent, image, chosen) - score(agent, image * (1 - mask) + blurred * mask, chosen)
                assert ours[b, i, j].item() == pytest.approx(drop, abs=2e-6)


def test_84_by_84_pixels_get_17_by_17_masks():
    assert Perturbation().grid(84, 84) == (17, 17)
    assert Perturbation().masks(84, 84).shape == (289, 84, 84)


def test_between_the_masks_a_map_is_bilinear(agent, obs):
    settings = Perturbation(stride=5)
    scores, drawn = settings.scores(agent, obs, Value()).numpy(), settings(agent, obs, Value())
    np.testing.assert_allclose(drawn[:, ::5, ::5], scores, atol=1e-6)
    np.testing.assert_allclose(drawn[:, 2, 5], 0.6 * scores[:, 0, 1] + 0.4 * scores[:, 1, 1], atol=1e-6)
    np.testing.assert_allclose(drawn[:, 39, 39], scores[:, -1, -1], atol=1e-6)


@pytest.mark.parametrize("method", [method for method in ANY if method != "sarfa"])
def test_every_method_finds_the_only_spot_that_matters(method):
    agent = OneSpot(20, 30)
    obs = torch.zeros(1, 2, SIZE, SIZE, dtype=torch.uint8)
    obs[:, :, 19:22, 29:32] = 255
    found = np.abs(saliency_map(agent, obs, Preference(0), method)[0])
    assert np.hypot(*(np.array(np.unravel_index(found.argmax(), found.shape)) - [20, 30])) <= 2
    assert found[:10].max() < 0.2 * found.max()


def test_gradients_agree_with_finite_differences(agent, obs):
    gradient = Gradient().attributions(agent, obs, Preference(1))
    rng = np.random.default_rng(1)
    for b, c, y, x in zip(*(rng.integers(n, size=10) for n in obs.shape), strict=True):
        step = torch.zeros(obs.shape, dtype=torch.float64)
        step[b, c, y, x] = 1e-3
        up, down = (agent.step(obs + sign * step).q_values[b, 1] for sign in (1, -1))
        assert gradient[b, c, y, x].item() == pytest.approx(((up - down) / 2e-3).item(), abs=1e-9)


class Bends(OneSpot):
    """A Q-value that bends every few grey levels on the way to black."""

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        bright = super().step(obs, state, first).q_values[:, :1]
        bent = (bright - torch.arange(3, 256, 7)).relu().sum(1, True)
        return PolicyOutput(q_values=torch.cat([bent, bright], 1))


class Jumps(OneSpot):
    """A Q-value that jumps: no gradient sees it."""

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        out = super().step(obs, state, first)
        return PolicyOutput(q_values=out.q_values + 100 * (out.q_values > 50))


@pytest.mark.parametrize("tolerance", [0.05, 0.005])
@pytest.mark.parametrize("target", [Advantage(), Value(), Preference(0)], ids=lambda target: target.name)
def test_integrated_gradients_sum_to_the_difference_from_the_baseline(agent, obs, target, tolerance):
    for each in (agent, Bends(20, 30)):
        found = IntegratedGradients(tolerance=tolerance).integrate(each, obs, target)
        prepared = target.prepare(each.step(obs))
        with torch.no_grad():
            whole = prepared(each.step(obs), None) - prepared(each.step(torch.zeros_like(obs)), None)
        torch.testing.assert_close(found.difference, whole)
        torch.testing.assert_close(found.attributions.sum((1, 2, 3)) - found.gap, whole)
        assert (found.gap.abs() <= tolerance * whole.abs()).all()


def test_integrated_gradients_warn_where_they_do_not_sum_up(obs):
    bright = torch.full_like(obs[:1], 200)
    with pytest.warns(UserWarning, match="action 0 miss the difference .* by up to 33% after 64 points"):
        IntegratedGradients(steps=64)(Jumps(20, 30), bright, Preference(0))


def test_a_method_needs_nothing_but_its_name_in_the_table(agent, obs, monkeypatch):
    monkeypatch.setitem(METHODS, "mean", lambda agent, obs, target, state=None: obs.float().mean(1).numpy())
    np.testing.assert_array_equal(saliency_map(agent, obs, Value(), "mean"), obs.float().mean(1))
    assert randomisation_check(agent, obs, Value(), "mean") == pytest.approx(1), "it looks at the picture alone"
    monkeypatch.setitem(METHODS, "broken", lambda agent, obs, target, state=None: np.full((3, SIZE, SIZE), np.nan))
    with pytest.raises(UserError, match="the maps of value are NaN or infinite"):
        saliency_map(agent, obs, Value(), "broken")


def test_a_map_of_a_shuffled_network_is_another_map(agent, obs):
    control = randomised(agent)
    for mine, shuffled in zip(agent.parameters(), control.parameters(), strict=True):
        assert torch.equal(mine.flatten().sort().values, shuffled.flatten().sort().values)
        assert len(mine) < 4 or not torch.equal(mine, shuffled)
    assert (np.abs(randomisation_check(agent, obs, Advantage(), "gradient")) < 0.5).all()


def test_integrated_gradients_warn_of_gaps_that_their_own_rule_does_not_allow_and_of_no_others(obs):
    class Level(OneSpot):
        """A large Q-value that is nearly the same everywhere."""

        def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
            q = super().step(obs, state, first).q_values.double()
            return PolicyOutput(q_values=1000 + 1e-3 * (q > 50) + 0 * q)

    bright = torch.full_like(obs[:1], 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IntegratedGradients(steps=32)(Level(20, 30), bright, Preference(0))
    found = IntegratedGradients(steps=32).integrate(Level(20, 30), bright, Preference(0))
    assert 0 < found.gap.abs() <= found.allowed


def test_greydanus_is_as_published(agent, obs):
    """Against eq. 1 to 3 of arXiv 1711.00138, written out with SciPy."""
    image = obs[0].numpy().astype(np.float64)
    blurred = np.stack([gaussian_filter(plane, 3, mode="mirror") for plane in image])  # A(I, sigma_A = 3)

    def policy_and_value(picture: np.ndarray) -> tuple[np.ndarray, float]:
        q = agent.step(torch.from_numpy(picture[None])).q_values[0].detach().numpy()
        return q, q.max()

    policy, value = policy_and_value(image)
    found = {target: GREYDANUS.scores(agent, obs[:1], target)[0] for target in (PolicyChange(), ValueChange())}
    for i, y in enumerate(range(0, SIZE, 5)):
        for j, x in enumerate(range(0, SIZE, 5)):
            spot = np.zeros((SIZE + 40, SIZE + 40))
            spot[y + 20, x + 20] = 1
            mask = gaussian_filter(spot, 5, mode="constant")[20:-20, 20:-20]  # M(i, j), sigma^2 = 25
            perturbed_policy, perturbed_value = policy_and_value(
                image * (1 - mask / mask.max()) + blurred * mask / mask.max()
            )
            wanted = 0.5 * ((policy - perturbed_policy) ** 2).sum(), 0.5 * (value - perturbed_value) ** 2
            for scores, score in zip(found.values(), wanted, strict=True):
                assert scores[i, j].item() == pytest.approx(score, rel=1e-3, abs=1e-7)
    assert (saliency_map(agent, obs, PolicyChange(), "greydanus") >= 0).all()
    with pytest.raises(UserError, match="policy change has no gradient at the observation"):
        saliency_map(agent, obs, PolicyChange(), "gradient")
