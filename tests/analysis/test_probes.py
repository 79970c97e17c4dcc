"""Probes against data with planted truth."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold
from torch import nn

from rl_interp.analysis.probes import study
from rl_interp.analysis.probes.regression import ALPHAS, chosen_alphas, probe, r_squared
from rl_interp.core.collect import collect
from rl_interp.core.envs import MiniGridConfig, env_config
from rl_interp.core.envs.labelled import Concept
from rl_interp.core.errors import UserError
from rl_interp.core.replay import activations, replay
from rl_interp.core.stats import auroc
from rl_interp.core.wrap import wrap

CONCEPTS = {
    "linear": Concept("a direction of the features", "number"),
    "above": Concept("whether it is above 0"),
    "noise": Concept("nothing that the features hold"),
    "never": Concept("is never true"),
}


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2000, 30))
    values[:, 7] = 3.0  # a constant feature is no trouble
    linear = values @ np.r_[1.0, -2.0, np.zeros(28)]
    labels = {"linear": 5 * linear + 100, "above": linear > 0, "noise": rng.random(2000) > 0.5, "never": np.zeros(2000)}
    return values, labels, np.repeat(np.arange(40), 50)


def test_what_is_there_is_found_and_what_is_not_is_not(data):
    scores = probe(data[0], data[1], CONCEPTS, data[2])
    assert set(scores) == {"linear", "above", "noise"}
    assert scores["linear"].value > 0.99
    assert scores["above"].value > 0.99
    assert scores["noise"].low < 0.5 < scores["noise"].high
    assert all(score.low <= score.value <= score.high for score in scores.values())


def test_of_few_held_out_episodes_there_are_scores_and_no_interval(data):
    few = data[2] // 5  # of 8 episodes, 2 are held out
    scores = probe(data[0], data[1], CONCEPTS, few)
    assert scores["above"].value > 0.99
    assert all(score.low is score.high is None for score in scores.values())


def test_a_score_that_is_the_same_in_all_resamples_has_no_interval():
    above = np.tile([0.0, 1.0], 1000)
    scores = probe(
        above[:, None] + np.linspace(0, 0.1, 2000)[:, None],
        {"above": above},
        {"above": CONCEPTS["above"]},
        np.arange(2000) // 50,
    )
    assert (scores["above"].value, scores["above"].low, scores["above"].high) == (1, None, None)


def test_scores_are_scikit_learns_with_weights_and_ties():
    rng = np.random.default_rng(0)
    truth, guess = rng.standard_normal(300), rng.integers(12, size=300) / 4
    weights = rng.integers(4, size=(5, 300)).astype(float)
    areas = [roc_auc_score(truth > 0, guess, sample_weight=each) for each in weights]
    np.testing.assert_allclose(auroc(truth, guess, weights), areas)
    shares = [r2_score(truth, guess, sample_weight=each) for each in weights]
    np.testing.assert_allclose(r_squared(truth, guess, weights), shares)
    assert np.isnan(auroc(np.ones(3), np.arange(3.0), np.ones((1, 3)))).all()


def test_a_truth_that_does_not_vary_has_no_share_explained():
    """Nothing is left of its variance but rounding."""
    random = np.random.default_rng(0)
    truth, guess = np.full(3000, -0.7), random.standard_normal(3000)
    truth[:10] = 31.8
    weights = random.integers(1, 4, (2, 3000)).astype(float)
    weights[1, :10] = 0
    found = r_squared(truth, guess, weights)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])


def test_shuffled_labels_score_at_chance(data):
    scores = probe(data[0], data[1], CONCEPTS, data[2], shuffles=20)
    assert scores["above"].value == pytest.approx(0.5, abs=0.03)
    assert scores["linear"].value == pytest.approx(0.0, abs=0.03)


def test_episodes_are_not_split():
    """A label that each episode has of its own can't be learned from others, however well it could be remembered."""
    rng = np.random.default_rng(1)
    episodes = np.repeat(np.arange(40), 50)
    of_episode = rng.random(40) > 0.5
    values = np.eye(40)[episodes] + 0.01 * rng.standard_normal((2000, 40))
    concepts = {"above": CONCEPTS["above"]}
    assert abs(probe(values, {"above": of_episode[episodes]}, concepts, episodes)["above"].value - 0.5) < 0.3
    with pytest.raises(UserError, match="3 episodes given; probes need at least 4"):
        probe(values[:150], {"above": episodes[:150] > 1}, concepts, episodes[:150])


@pytest.fixture(params=[60, 300])
def slow(request):
    """Latents `[2000, D]` that change slowly through 40 episodes, three numbers `[2000, 3]` that they tell beside
    something else that changes as slowly, and the episodes."""
    rng, width = np.random.default_rng(0), request.param
    steps = rng.standard_normal((40, 50, width + 3))
    for step in range(1, 50):
        steps[:, step] = 0.95 * steps[:, step - 1] + (1 - 0.95**2) ** 0.5 * steps[:, step]
    latents, other = np.split(steps.reshape(2000, -1), [width], 1)
    told = latents[:, :5] @ rng.standard_normal((5, 3)) / 5**0.5 + other
    return latents / latents.std(0), (told - told.mean(0)) / told.std(0), np.repeat(np.arange(40), 50)


def test_slow_latents_are_read_with_a_stronger_ridge_than_left_out_rows_would_choose_and_better(slow):
    latents, told, episodes = slow
    held_out = np.isin(episodes, np.random.default_rng(0).permutation(40)[:12])
    by_rows = RidgeCV(ALPHAS, alpha_per_target=True).fit(latents[~held_out], told[~held_out])
    assert (chosen_alphas(latents[~held_out], told[~held_out], episodes[~held_out]) > by_rows.alpha_).all()
    scores = probe(latents, dict(zip("abc", told.T, strict=True)), dict.fromkeys("abc", CONCEPTS["linear"]), episodes)
    of_rows = r2_score(told[held_out], by_rows.predict(latents[held_out]))
    assert np.mean([score.value for score in scores.values()]) > of_rows + 0.02


@pytest.mark.parametrize("count", [40, 3])
def test_the_strength_of_the_ridge_is_that_of_a_search_by_episodes(slow, count):
    latents, told, episodes = slow
    episodes = episodes * count // 40
    search = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=GroupKFold(min(4, count)))
    wanted = [search.fit(latents, each, groups=episodes).best_params_["alpha"] for each in told.T]
    np.testing.assert_array_equal(chosen_alphas(latents, told, episodes), wanted)


def test_one_episode_that_is_unlike_the_others_does_not_choose_the_ridge():
    """Its errors are the largest by far, and the least with a ridge that leaves nothing."""
    values, episodes = np.random.default_rng(0).standard_normal((2000, 60)), np.repeat(np.arange(40), 50)
    numbers = np.where(episodes == 0, -10, 1) * values[:, 0]
    np.testing.assert_array_equal(chosen_alphas(values, numbers[:, None], episodes), [1])


@pytest.mark.parametrize("width", [30, 600])
def test_what_is_constant_where_it_is_fitted_is_left_out_wherever_it_lies(width):
    """In float32 the mean of many 0.1s is not 0.1."""
    rng = np.random.default_rng(3)
    values, episodes = rng.standard_normal((4000, width)).astype(np.float32), np.repeat(np.arange(40), 100)
    linear = values[:, 0] + values[:, 1]
    values[:, 2] = 0.1
    concepts = {"linear": CONCEPTS["linear"]}
    plain = probe(values, {"linear": linear}, concepts, episodes)["linear"]
    held_out = np.random.default_rng(0).permutation(40)[0]
    values[np.flatnonzero(episodes == held_out)[0], 2] = 0.7
    assert probe(values, {"linear": linear}, concepts, episodes)["linear"] == plain


def test_a_unit_that_hardly_fires_where_it_is_fitted_does_not_decide_the_score():
    """As a dormant unit of a network does: once by 1e-3 in fitted episodes, and once by 1 in one that is held out."""
    rng = np.random.default_rng(3)
    values, episodes = rng.standard_normal((4000, 30)).astype(np.float32), np.repeat(np.arange(40), 100)
    linear = values[:, 0] + rng.standard_normal(4000)
    values[:, 2] = 0
    concepts, order = {"linear": CONCEPTS["linear"]}, np.random.default_rng(0).permutation(40)
    plain = probe(values, {"linear": linear}, concepts, episodes)["linear"]
    for episode, fires in ((order[-1], 1e-3), (order[0], 1.0)):
        values[np.flatnonzero(episodes == episode)[0], 2] = fires
    assert probe(values, {"linear": linear}, concepts, episodes)["linear"].value == pytest.approx(plain.value, abs=0.01)


def test_wide_features_are_reduced_without_losing_what_varies():
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((1000, 5))
    values = hidden @ rng.standard_normal((5, 3000)) + 0.1 * rng.standard_normal((1000, 3000))
    concepts = {"linear": CONCEPTS["linear"]}
    score = probe(values, {"linear": hidden[:, 0]}, concepts, np.repeat(np.arange(20), 50))["linear"]
    assert score.value > 0.97


def test_episodes_are_followed_as_they_were_played(tmp_path):
    """The features of recorded episodes, played again, are those that were collected."""
    from rl_interp.agents.impala import default_config, make_agent

    config = default_config("MiniGrid-Unlock-v0", hidden=16, lstm=16)
    agent = make_agent(config).eval()
    assert isinstance(config.env, MiniGridConfig)
    store = collect(agent, config.env, "lstm.h", 600, tmp_path / "store", seed=3)
    again = [activations(agent, episode, ["lstm.h", "conv2.post"]) for episode in replay(config.env, store)]
    np.testing.assert_allclose(
        np.concatenate([each["lstm.h"] for each in again]), store.read(np.arange(store.samples)), atol=1e-5
    )
    assert again[0]["conv2.post"].shape[1] == 64 * 9


def test_an_environment_without_concepts_is_refused_before_anything_is_played(monkeypatch):
    monkeypatch.setattr(study, "collect_store", lambda *args, **named: pytest.fail("it was played"))
    loaded = SimpleNamespace(agent=wrap(nn.Linear(4, 2), {"q": ("", "B A")}), env=env_config("CartPole-v1"))
    with pytest.raises(UserError, match=r"CartPole-v1 tells nothing of its states .* with --env\.labels"):
        study.probe_run(loaded, ["q"])
