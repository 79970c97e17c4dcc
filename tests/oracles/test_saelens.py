"""An exported autoencoder in SAELens itself, which is large and not part of `dev`: `pip install sae-lens` first."""

import numpy as np
import pytest
import torch

from sae import ArrayActivations, SAEConfig, fit, save

sae_lens = pytest.importorskip("sae_lens", reason="needs sae-lens")


def test_saelens_reads_an_export_and_computes_the_same(tmp_path):
    data = np.random.default_rng(0).gamma(1.0, 2.0, (2000, 24)).astype(np.float32)
    ours = fit(ArrayActivations(data), SAEConfig(latents=64, k=6, epochs=3, batch_size=256))
    save(ours, tmp_path / "sae", {"hook_name": "fc.post"})
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "sae"), device="cpu")
    x = torch.from_numpy(data[:200])
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(theirs.decode(theirs.encode(x)), ours(x), rtol=1e-5, atol=1e-5)
    assert theirs.cfg.metadata.hook_name == "fc.post"
