"""Measures beside their definitions, on planted cases that tell them from what is nearly the same."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rl_interp.sae import ArrayActivations, Features, JumpReLU, clamp_effects, coverage, evaluate, return_recovered


@torch.no_grad()
def dictionary(decoder: torch.Tensor, threshold: float = 0.0) -> JumpReLU:
    """Latents `x decoderᵀ` where they are above the threshold, and no biases."""
    latents, width = decoder.shape
    sae = JumpReLU(width, latents)
    sae.W_dec.copy_(decoder)
    sae.W_enc.copy_(decoder.T)
    sae.threshold.fill_(threshold)
    return sae.eval()


def test_rare_and_dense_latents_are_told_by_the_share_of_samples_in_which_they_fire():
    fired = [0, 1, 2, 199, 200, 201, 2_000, 2_001, 10_000, 10_001]  # of 20,000
    x = (np.arange(20_000)[:, None] < fired).astype(np.float32)
    metrics = evaluate(dictionary(torch.eye(10)), ArrayActivations(x), np.random.default_rng(0).permutation(20_000))
    assert metrics.dead_fraction == pytest.approx(1 / 10)
    assert metrics.ultra_rare_fraction == pytest.approx(1 / 10)  # fewer than one in 10,000, but some
    assert metrics.dense_fraction == pytest.approx(3 / 10)  # more than 10%
    assert metrics.dense_50_fraction == pytest.approx(1 / 10)  # more than half


@pytest.mark.parametrize("latents", [2, 30, 4_200])  # the last in several parts
def test_the_decoder_cosine_is_with_the_nearest_other_latent(latents):
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(latents, 8, generator=generator) * torch.rand(latents, 1, generator=generator)
    metrics = evaluate(dictionary(decoder), ArrayActivations(np.eye(8, dtype=np.float32)), np.arange(8))
    units = decoder.double().numpy()
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    assert metrics.decoder_cosine == pytest.approx(cosines.max(1).mean(), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_of_the_recovered_return_is_as_wide_as_the_spread_of_episodes_makes_it(seed):
    """By the delta method: Var((b − c) / (a − c)) = (Var b + f² Var a + (1 − f)² Var c) / (a − c)², of means of
    conditions that are independent, although here the same episodes go well."""
    rng = np.random.default_rng(seed)
    original = rng.normal(1000, 100, 60)
    spliced, ablated = original - 300 + rng.normal(0, 20, 60), 0.5 * original + rng.normal(-300, 20, 60)
    recovered = return_recovered(original, spliced, ablated, seed=seed)
    assert recovered is not None
    fraction = recovered.value
    assert fraction == pytest.approx((spliced.mean() - ablated.mean()) / (original.mean() - ablated.mean()))
    variances = [each.var() / len(each) for each in (spliced, original, ablated)]
    variance = np.dot(variances, [1, fraction**2, (1 - fraction) ** 2])
    half = 1.96 * np.sqrt(variance) / (original.mean() - ablated.mean())
    assert recovered.low == pytest.approx(fraction - half, abs=0.1 * half)
    assert recovered.high == pytest.approx(fraction + half, abs=0.1 * half)


@pytest.mark.parametrize("leak", ["feature", "threshold"])
def test_the_feature_and_threshold_of_the_best_f1_are_chosen_in_training_alone(leak):
    """What is right in training is never right in the held-out rows, where another choice is perfect."""
    rows = np.arange(1000)
    concept, other = rows % 4 == 0, rows % 4 == 2
    if leak == "feature":
        train, held_out = [concept, concept | other], [other, concept]
    else:
        train, held_out = [2 * concept + other], [concept]
    first, second = (Features.dense(np.stack(each, axis=1).astype(np.float32)) for each in (train, held_out))
    assert coverage(first, second, concept[:, None], concept[:, None]).f1 == [0.0]


def active(sae: JumpReLU, x: torch.Tensor) -> torch.Tensor:
    """`[..., F]`."""
    z = x @ sae.W_enc
    return z * (z > sae.threshold)


@torch.no_grad()
@pytest.mark.parametrize("positions", [(), (5,)])
def test_the_clamps_control_moves_each_position_as_far_as_the_feature_does(positions):
    generator = torch.Generator().manual_seed(1)
    sae = dictionary(0.5 * torch.randn(30, 16, generator=generator), threshold=0.5)
    values = 3 * torch.rand(30, generator=generator)
    for _ in range(5):
        x = torch.randn(1, *positions, 16, generator=generator)

        def head(at: torch.Tensor, start: torch.Tensor = x) -> torch.Tensor:
            """Prefers its first action, by 3, until a position has moved farther; the others tell how far each has."""
            return F.pad((at - start).norm(dim=-1).reshape(1, -1), (1, 0), value=3.0)

        distances = (values - active(sae, x)).abs() * sae.W_dec.norm(dim=1)
        for feature, effect in enumerate(clamp_effects(sae, x, head, values)):
            moved = distances[..., feature].flatten()
            assert effect.preference_change == pytest.approx([0, *moved.tolist()], rel=1e-4, abs=1e-5)
            assert effect.preference_change_control == pytest.approx(effect.preference_change, rel=1e-4, abs=1e-5)
            assert effect.changed == effect.changed_control == float(moved.max() > 3)


@torch.no_grad()
@pytest.mark.parametrize("linear", [True, False])
def test_a_clamps_effects_are_what_the_head_says_of_the_moved_states(linear):
    generator = torch.Generator().manual_seed(1)
    sae = dictionary(0.5 * torch.randn(30, 16, generator=generator), threshold=0.5)
    values = 3 * torch.rand(30, generator=generator)
    x, head = torch.randn(200, 16, generator=generator), torch.nn.Linear(16, 4)
    for parameter in head.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    before, cosines = head(x), []
    # Through the closed form, or through the states.
    for feature, effect in enumerate(clamp_effects(sae, x, head if linear else head.forward, values)):
        distance = values[feature] - active(sae, x)[:, [feature]]
        after = head(x + distance * sae.W_dec[feature])
        old, new = before.argmax(1), after.argmax(1)
        chosen, chosen_after, chosen_instead = (
            F.one_hot(each, 4).float().mean(0) for each in (old, new, new[new != old])
        )
        assert effect.changed == pytest.approx((new != old).float().mean().item())
        assert effect.towards == pytest.approx((chosen_after - chosen).tolist(), abs=1e-6)
        assert effect.new_actions == pytest.approx(chosen_instead.tolist(), abs=1e-6)
        assert effect.preference_change == pytest.approx((after - before).mean(0).tolist(), abs=1e-4)
        cosines.append(np.corrcoef(effect.preference_change, effect.preference_change_control)[0, 1])
    assert np.abs(cosines).mean() < 0.7  # the control's direction is another


@torch.no_grad()
def test_clamping_moves_a_continuous_action_by_what_the_head_says_in_its_standard_deviations():
    generator = torch.Generator().manual_seed(2)
    sae = dictionary(0.5 * torch.randn(30, 16, generator=generator), threshold=0.5)
    values = 3 * torch.rand(30, generator=generator)
    x, weight = torch.randn(200, 16, generator=generator), torch.randn(16, 3, generator=generator)

    def head(at: torch.Tensor) -> torch.Tensor:
        """Two numbers on scales of 1 and 100, and one that is always the same."""
        return (at @ weight).tanh() * torch.tensor([1.0, 100.0, 0.0])

    before = head(x).numpy().astype(np.float64)
    for feature, effect in enumerate(clamp_effects(sae, x, head, values, continuous=True)):
        distance = values[feature] - active(sae, x)[:, [feature]]
        move = head(x + distance * sae.W_dec[feature]).numpy() - before
        assert effect.preference_change == pytest.approx(move.mean(0), abs=1e-4)
        in_spreads = move[:, :2] / np.std(before[:, :2], axis=0, ddof=1)
        assert effect.towards == pytest.approx([*in_spreads.mean(0), 0], abs=1e-4)
        assert effect.changed == pytest.approx(np.sqrt((in_spreads**2).sum(1) / 3).mean(), abs=1e-4)
