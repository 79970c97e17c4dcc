"""How many latents are active in a sample: about k, of penalised variants too, or it is said."""

import numpy as np
import pytest
import torch

from rl_interp.analysis.sae.fitting import note_activity
from rl_interp.core.progress import Progress
from rl_interp.sae import ArrayActivations, SAEConfig, evaluate, fit
from rl_interp.sae.training.kernels.pairs import DenseKernel
from rl_interp.sae.training.variants import VARIANTS


@pytest.mark.parametrize("variant", ["jumprelu", "gated"])
@pytest.mark.parametrize(("samples", "latents", "k"), [(600, 64, 4), (2000, 128, 8)])
def test_about_k_latents_are_active_after_a_few_updates(variant, samples, latents, k):
    data = np.random.default_rng(0).normal(size=(samples, 48)).astype(np.float32)
    sae = fit(data, SAEConfig(variant=variant, latents=latents, k=k))  # of 24 and of 48 updates
    assert evaluate(sae, ArrayActivations(data), np.arange(samples)).l0 == pytest.approx(k, rel=0.25)


@pytest.mark.parametrize("variant", ["jumprelu", "gated"])
def test_the_coefficient_of_a_long_fit_moves_as_it_always_did(variant):
    config = SAEConfig(variant=variant, latents=16, k=2)
    planned, plain = (VARIANTS[config.variant](config, DenseKernel(), 8, 8) for _ in range(2))
    planned.plan(1000)
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for each in (planned, plain):
        each.initialise(x[:16], x[:16], x, x)
        assert each.losses(x, x, 8.0).loss.isfinite()
    assert planned.sparsity_coefficient == plain.sparsity_coefficient
    assert 0.0098 <= planned.sparsity_coefficient <= 0.0102
    assert torch.equal(planned.losses(x, x, 8.0).loss, plain.losses(x, x, 8.0).loss)


def test_that_activity_is_far_from_k_is_said():
    class Notes(Progress):
        said: list[str] = []

        def note(self, sentence):
            self.said.append(sentence)

    for variant, l0 in (("gated", 48.3), ("jumprelu", 5.9), ("gated", 9.9), ("jumprelu", 6.1), ("topk", 3.0)):
        note_activity("fc", SAEConfig(variant=variant, k=8), l0, Notes())
    assert [each.split(";")[0] for each in Notes.said] == [
        "fc: 48.3 latents are active in a sample on average, and k is 8",
        "fc: 5.9 latents are active in a sample on average, and k is 8",
    ]
