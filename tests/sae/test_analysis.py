"""Metrics, features, effects and the layout on disk, against closed forms and other implementations."""

import json

import numpy as np
import pytest
import torch
from made import filled, make, make_jump
from sklearn.metrics import f1_score, roc_auc_score

from rl_interp.core.errors import RunError, UserError
from rl_interp.core.stats import auroc
from rl_interp.sae import (
    ArrayActivations,
    ConceptMatch,
    Features,
    TopK,
    action_agreement,
    best_per_concept,
    both_signs,
    coordinates,
    coverage,
    encode_rows,
    evaluate,
    generality,
    load,
    match_concepts,
    neighbours,
    policy_kl,
    q_nmse,
    rebuild,
    return_recovered,
    save,
    split_by_episode,
)  # fmt: skip
from rl_interp.sae.evaluation import features as features_module


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)


def test_sparse_and_dense_encoding_agree(x):
    sae, rows = make(), torch.from_numpy(x)
    latents = sae.encode(rows)
    assert ((latents > 0).sum(1) <= 3).all()
    torch.testing.assert_close(sae.decode(latents), sae(rows))
    pre = sae.pre_activations(rows)
    for row in range(5):
        kept = pre[row].argsort(descending=True)[:3]
        wanted = torch.zeros(10).index_copy(0, kept, pre[row, kept].relu())
        torch.testing.assert_close(latents[row], wanted)


def test_latents_of_a_jumprelu_are_those_above_their_thresholds(x):
    sae, rows = make_jump(), torch.from_numpy(x)
    z = (rows - sae.b_dec) @ sae.W_enc + sae.b_enc
    torch.testing.assert_close(sae.encode(rows), torch.where(z > sae.threshold, z, 0.0))
    torch.testing.assert_close(sae(rows), sae.decode(sae.encode(rows)))
    other = make_jump(d_out=4)
    assert other(rows).shape == (400, 4)
    z = rows @ other.W_enc + other.b_enc
    torch.testing.assert_close(other.encode(rows), torch.where(z > other.threshold, z, 0.0))


@pytest.mark.parametrize("sae", [make(), make_jump()])
def test_metrics_are_their_definitions(x, sae):
    got = evaluate(sae, ArrayActivations(x), np.arange(400), batch=64)
    latents = sae.encode(torch.from_numpy(x)).detach().numpy()
    error = x - sae(torch.from_numpy(x)).detach().numpy()
    density = (latents > 0).mean(0)
    assert got.fvu == pytest.approx((error**2).sum() / ((x - x.mean(0)) ** 2).sum(), rel=1e-5)
    assert got.l0 == pytest.approx((latents > 0).sum(1).mean())
    assert got.dead_fraction == (density == 0).mean()
    assert got.dense_fraction == pytest.approx((density > 0.1).mean())
    assert got.dense_50_fraction == pytest.approx((density > 0.5).mean())
    np.testing.assert_allclose(encode_rows(sae, ArrayActivations(x), np.arange(400)).density(), density)


@pytest.mark.parametrize("sae", [make(), make_jump()])
def test_figures_from_an_encoding_are_those_from_the_rows(x, sae):
    data, rows, episodes = ArrayActivations(x), np.arange(400)[::3], np.arange(400)[::3] // 50
    encoding = encode_rows(sae, data, np.arange(400)).take(rows)
    np.testing.assert_array_equal(encoding.dense(), encode_rows(sae, data, rows).dense())
    wanted, got = (evaluate(sae, data, rows, batch=64, encoding=each) for each in (None, encoding))
    np.testing.assert_array_equal(got.fired, wanted.fired)
    assert got.fvu == pytest.approx(wanted.fvu, rel=1e-6)
    assert (got.l0, got.dense_fraction) == (wanted.l0, wanted.dense_fraction)
    np.testing.assert_array_equal(
        generality(sae, data, rows, episodes, encoding=encoding), generality(sae, data, rows, episodes)
    )


def test_features_scored_in_parts_are_scored_as_all_together(x, monkeypatch):
    encoding, labels = encode_rows(make(), ArrayActivations(x), np.arange(400)), x[:, :3] > 0
    features, some = Features(encoding), np.arange(400)[::7]
    whole = features.auroc(labels), features.at(some).toarray()
    np.testing.assert_array_equal(whole[1], encoding.dense()[some])
    np.testing.assert_array_equal(features.largest(), encoding.dense().max(0))
    monkeypatch.setattr(features_module, "_ENTRIES", 150)
    assert len(list(features.parts())) > 3
    np.testing.assert_allclose(features.auroc(labels), whole[0], atol=1e-12)
    np.testing.assert_array_equal(features.at(some).toarray(), whole[1])


def test_the_splices_error_is_zero_for_the_same_and_one_for_the_mean():
    q = torch.randn(50, 4)
    assert (q_nmse(q, q), action_agreement(q, q), policy_kl(q, q)) == (0, 1, 0)
    assert q_nmse(q, q.mean(0).expand(50, 4)) == pytest.approx(1, rel=1e-5)
    assert action_agreement(q, -q) == 0
    assert action_agreement(q, torch.where(torch.arange(50)[:, None] < 10, torch.nan, q)) == pytest.approx(0.8)


def test_the_policys_change_is_pytorchs_divergence():
    p, q = (torch.distributions.Categorical(logits=torch.randn(50, 4)) for _ in range(2))
    wanted = torch.distributions.kl_divergence(p, q).mean().item()
    assert policy_kl(p.logits, q.logits) == pytest.approx(wanted, rel=1e-5)
    assert policy_kl(p.logits, torch.where(torch.arange(len(q.logits))[:, None] == 1, torch.nan, q.logits)) is None


def test_an_action_that_is_ruled_out_neither_counts_as_changed_nor_takes_the_figures_away():
    logits, spliced, ruled_out = torch.randn(50, 4), torch.randn(50, 4), torch.zeros(50, 4, dtype=torch.bool)
    ruled_out[:30, 1] = True
    masked, changed = (each.masked_fill(ruled_out, -torch.inf) for each in (logits, spliced))
    assert (q_nmse(masked, masked), action_agreement(masked, masked), policy_kl(masked, masked)) == (0, 1, 0)
    low = (each.masked_fill(ruled_out, -1e4) for each in (logits, spliced))  # as good as ruled out
    assert policy_kl(masked, changed) == pytest.approx(policy_kl(*low), rel=1e-5)
    assert action_agreement(masked, changed) == (masked.argmax(1) == changed.argmax(1)).float().mean().item()
    kept = [masked[~ruled_out[:, action], action] for action in range(4)]
    spread = sum((each - each.mean()).square().sum() for each in kept)
    assert q_nmse(masked, changed) == pytest.approx(((logits - spliced)[~ruled_out].square().sum() / spread).item())
    nowhere = torch.full_like(logits, -torch.inf)
    assert (action_agreement(logits, nowhere), policy_kl(logits, nowhere)) == (0, None)


def test_return_recovered_is_a_fraction_with_an_interval():
    rng = np.random.default_rng(0)
    original, spliced, zero = rng.normal(1000, 50, 40), rng.normal(900, 50, 40), rng.normal(200, 20, 40)
    found = return_recovered(original, spliced, zero)
    assert found.value == pytest.approx((spliced.mean() - zero.mean()) / (original.mean() - zero.mean()))
    assert found.low < found.value < found.high


def test_no_return_is_recovered_where_ablation_costs_none_for_certain():
    rng = np.random.default_rng(0)
    few, many = (rng.normal(100, 50, n) for n in (3, 40))
    assert return_recovered(few, few, few) is None
    assert return_recovered(many, many, rng.normal(95, 50, 40)) is None


def test_episodes_are_split_whole():
    episodes = np.repeat(np.arange(10), 7)
    train, held_out = split_by_episode(episodes, 0.2, seed=0)
    assert len(np.unique(episodes[held_out])) == 2
    assert not set(episodes[train]) & set(episodes[held_out])
    assert len(train) + len(held_out) == 70
    with pytest.raises(UserError, match="too few to hold out"):
        split_by_episode(np.zeros(9, int), 0.2, seed=0)


def test_auroc_agrees_with_scikit_learn_ties_included(x):
    sae = make()
    encoding = encode_rows(sae, ArrayActivations(x), np.arange(400))
    np.maximum(encoding.values.round(1), 0.1, out=encoding.values)  # ties among the active ones too
    dense = encoding.dense()
    labels = np.stack([x[:, 0] > 0, x[:, 1] > 1, np.ones(400, bool)], 1)
    got = Features(encoding).auroc(labels)
    for feature in range(10):
        for concept in range(2):
            assert got[feature, concept] == pytest.approx(
                roc_auc_score(labels[:, concept], dense[:, feature]), abs=1e-12
            )
    assert np.isnan(got[:, 2]).all()
    np.testing.assert_allclose(Features.dense(dense).auroc(labels[:, :2]), got[:, :2])
    np.testing.assert_allclose(auroc(labels[:, 0], dense[:, 3], np.ones((1, 400))), got[3, 0])


def test_feature_statistics_and_top_rows_from_distinct_episodes(x):
    encoding = encode_rows(make(), ArrayActivations(x), np.arange(400))
    features, episodes = Features(encoding), np.arange(400) // 20
    dense = encoding.dense()
    np.testing.assert_array_equal(dense, make().encode(torch.from_numpy(x)).detach())
    np.testing.assert_array_equal(features.counts(), (dense > 0).sum(0))
    for feature in np.flatnonzero(features.counts()):
        top = features.top(feature, episodes, 5)
        assert len(set(episodes[top])) == len(top)
        assert dense[top[0], feature] == dense[:, feature].max()
        assert (np.diff(dense[top, feature]) <= 0).all()
        counts, _ = features.histogram(feature)
        assert counts.sum() == features.counts()[feature]


def test_neighbours_fire_alike_and_together(x):
    encoding = encode_rows(filled(make()), ArrayActivations(x), np.arange(400))
    dense, features = encoding.dense().astype(np.float64), Features(encoding)
    cosines = dense.T @ dense / np.maximum(np.outer(*[np.linalg.norm(dense, axis=0)] * 2), 1e-12)
    np.fill_diagonal(cosines, -1)
    for f, near in enumerate(neighbours(features, 3)):
        wanted = [g for g in np.argsort(-cosines[f], kind="stable")[:3] if cosines[f, g] > 0]
        assert [each.feature for each in near] == wanted
        for each in near:
            assert each.similarity == pytest.approx(cosines[f, each.feature])
            both = ((dense[:, f] > 0) & (dense[:, each.feature] > 0)).sum()
            assert each.together == pytest.approx(both / (dense[:, f] > 0).sum())


def test_concepts_are_chosen_in_training_and_scored_held_out():
    rng = np.random.default_rng(0)
    labels = rng.random((600, 2)) < 0.3
    activations = np.zeros((600, 3))
    activations[:, 1] = labels[:, 0] * rng.uniform(1, 2, 600)  # tells concept a everywhere
    activations[:400, 2] = labels[:400, 1]  # tells concept b in the training rows alone
    train, held = Features.dense(activations[:400]), Features.dense(activations[400:])
    matches = match_concepts(train, held, labels[:400], labels[400:], ["a", "b"], count=1)
    assert matches[0] == []
    assert matches[1] == [ConceptMatch("a", auroc=1.0, precision=1.0)]
    assert matches[2] == [ConceptMatch("b", auroc=0.5, precision=None)]
    assert train.precision(labels[:400])[1, 1] == pytest.approx(labels[:400, 1][labels[:400, 0]].mean())
    np.testing.assert_allclose(best_per_concept(train, held, labels[:400], labels[400:]), [1.0, 0.5])


def test_coverage_is_that_of_the_best_feature_and_of_all_together():
    rng = np.random.default_rng(0)
    labels = rng.random((3000, 2)) < 0.3
    strength = rng.uniform(1, 2, (3000, 2))
    activations = np.zeros((3000, 6), np.float32)
    activations[:, 0] = labels[:, 0] * strength[:, 0]  # one feature tells the first concept
    halves = rng.random(3000) < 0.5
    activations[:, 1] = labels[:, 1] * halves  # two features share the second
    activations[:, 2] = labels[:, 1] * ~halves
    activations[:, 3:] = (rng.random((3000, 3)) < 0.2) * rng.random((3000, 3))
    split = (slice(0, 2000), slice(2000, 3000))
    features = [Features.dense(activations[rows]) for rows in split]
    got = coverage(*features, *(labels[rows] for rows in split))
    assert got.auroc[0] == pytest.approx(1)
    assert got.f1[0] == pytest.approx(1)
    assert got.auroc[1] == pytest.approx(0.75, abs=0.03)  # it fires in half of the positives
    assert got.f1[1] == pytest.approx(2 / 3, abs=0.06)
    assert got.probe.min() > 0.99
    assert got.few_f1 == pytest.approx(1, abs=0.01)  # two that share a concept detect it together
    shuffled = coverage(*features, *(rng.permuted(labels[rows], axis=0) for rows in split))
    assert np.abs(shuffled.probe - 0.5).max() < 0.1
    assert shuffled.few_f1.max() < 0.55  # to name every sample has 2 * .3 / 1.3 = .46
    with pytest.raises(UserError, match="a concept that all or no samples"):
        coverage(*features, np.ones((2000, 2), bool), labels[2000:])


def test_the_best_f1_is_scikit_learns(x):
    features, labels = Features.dense(np.maximum(x, 0).round(1)), (x[:, :1] + x[:, 1:2]) > 0.5
    got = coverage(features, features, labels, labels).f1[0]
    values = np.maximum(x, 0).round(1)
    scores = [f1_score(labels[:, 0], values[:, f] >= t) for f in range(6) for t in np.unique(values[:, f]) if t > 0]
    assert got == pytest.approx(max(scores))


def test_a_neuron_that_always_fires_may_tell_what_is_rare_by_its_topmost_activations():
    rng = np.random.default_rng(0)
    labels = rng.random((6000, 1)) < 0.01
    x = (1 + rng.random((6000, 1)) + labels).astype(np.float32)
    assert coverage(*map(Features.dense, (x[:4000], x[4000:])), labels[:4000], labels[4000:]).f1[0] > 0.9


def test_a_signed_coordinate_has_the_thresholds_of_a_feature_that_is_its_positive_part():
    rng = np.random.default_rng(0)
    labels = rng.random((4000, 1)) < 0.05
    x = rng.normal(size=(4000, 1)).astype(np.float32) + 3 * labels.astype(np.float32)
    splits = x[:3000], x[3000:]
    part = [Features.dense(np.maximum(np.concatenate([values, -values], 1), 0)) for values in splits]
    got, wanted = (coverage(*both, labels[:3000], labels[3000:]) for both in (both_signs(*splits), part))
    assert got.f1 == wanted.f1
    assert got.auroc == pytest.approx(roc_auc_score(labels[3000:, 0], splits[1][:, 0]))  # the order of negatives counts


@pytest.mark.parametrize("negative", [0, 1], ids=["training", "held-out"])
def test_either_split_may_hold_the_only_negative_value(negative):
    rng = np.random.default_rng(0)
    splits = [np.abs(rng.normal(size=(300, 3))).astype(np.float32) for _ in range(2)]
    splits[negative][0, 0] = -0.1
    found = dict(coordinates(*splits))
    assert "NMF" not in found
    for features in found.values():
        assert features[0].d_sae == features[1].d_sae == 6
        coverage(*features, *(rng.random((2, 300, 1)) < 0.5))


def test_coordinates_count_in_both_signs_and_find_mixed_sources():
    rng = np.random.default_rng(0)
    sources = rng.exponential(size=(3000, 4)) * (rng.random((3000, 4)) < 0.3)
    x = (sources @ rng.normal(size=(4, 10))).astype(np.float32)
    found = dict(coordinates(x[:2000], x[2000:]))
    assert set(found) == {"neurons", "PCA", "ICA"}  # NMF needs activations without a sign
    assert found["PCA"][0].d_sae == 2 * 4  # as many as the data has directions
    labels = sources > 0
    ica = coverage(*found["ICA"], labels[:2000], labels[2000:])
    neurons = coverage(*found["neurons"], labels[:2000], labels[2000:])
    assert ica.auroc.min() > 0.95 > neurons.auroc.mean()
    assert "NMF" in dict(coordinates(np.abs(x[:2000]), np.abs(x[2000:])))


@pytest.mark.parametrize(
    ("sae", "architecture"),
    [
        (make(), "topk"),
        (make_jump(), "jumprelu"),
        (make_jump(d_out=4), "jumprelu_transcoder"),
        (filled(TopK(6, 10, 3, d_out=4)), "topk_transcoder"),
    ],
)
def test_every_dictionary_comes_back_from_disk(tmp_path, x, sae, architecture):
    save(sae, tmp_path / "sae")
    loaded = load(tmp_path / "sae")
    assert json.loads((tmp_path / "sae" / "cfg.json").read_text())["architecture"] == architecture
    assert torch.equal(loaded(torch.from_numpy(x)), sae(torch.from_numpy(x)))
    again = rebuild(sae.state_dict(), 3, sae.transcodes)
    assert torch.equal(again(torch.from_numpy(x)), sae(torch.from_numpy(x)))


def test_a_dictionary_that_is_given_x_itself_is_read_as_one_that_is_given_the_difference(tmp_path, x):
    sae = make()
    save(sae, tmp_path / "sae")
    path = tmp_path / "sae" / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"apply_b_dec_to_input": False}))
    z = torch.from_numpy(x) @ sae.W_enc + sae.b_enc
    torch.testing.assert_close(load(tmp_path / "sae").pre_activations(torch.from_numpy(x)), z)


def test_an_autoencoder_says_where_it_is_from_and_misfits_are_named(tmp_path, x):
    sae = make()
    save(sae, tmp_path / "sae", {"hook_name": "fc.post"})
    assert {p.name for p in (tmp_path / "sae").iterdir()} == {"cfg.json", "sae_weights.safetensors"}
    loaded = load(tmp_path / "sae")
    assert torch.equal(loaded(torch.from_numpy(x)), sae(torch.from_numpy(x)))
    config = json.loads((tmp_path / "sae" / "cfg.json").read_text())
    assert (config["architecture"], config["k"], config["metadata"]["hook_name"]) == ("topk", 3, "fc.post")
    for change, message in (
        ({"architecture": "crosscoder"}, "architecture = 'crosscoder'; those that can be read: topk"),
        ({"architecture": "standard"}, "k = 3; it is not known what that does to 'standard'"),
        ({"normalize_activations": "layer_norm"}, "normalize_activations = 'layer_norm', .* only 'none'"),
        ({"d_sae": 11}, r"W_enc is \(6, 10\), cfg.json says \(6, 11\)"),
    ):
        (tmp_path / "sae" / "cfg.json").write_text(json.dumps(config | change))
        with pytest.raises(RunError, match=message):
            load(tmp_path / "sae")
    with pytest.raises(RunError, match=r"cfg.json is missing"):
        load(tmp_path)
