"""Dictionaries in SAELens itself, which is large and not part of `dev`: `pip install sae-lens` first."""

import numpy as np
import pytest
import torch

from sae import SAE, ArrayActivations, JumpReLU, SAEConfig, fit, load, save

sae_lens = pytest.importorskip("sae_lens", reason="needs sae-lens")


def data(seed: int = 0, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).gamma(1.0, 2.0, (2000, width)).astype(np.float32)


def same(theirs, ours: SAE) -> None:
    x = torch.from_numpy(data()[:200])
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(theirs.decode(theirs.encode(x)), ours(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["topk", "batch_topk", "jumprelu", "gated"])
def test_saelens_reads_an_export_and_computes_the_same(tmp_path, kind):
    ours = fit(ArrayActivations(data()), SAEConfig(kind=kind, latents=64, k=6, epochs=3, batch_size=256))
    save(ours, tmp_path / "sae", {"hook_name": "fc.post"})
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "sae"), device="cpu")
    same(theirs, ours)
    assert theirs.cfg.metadata.hook_name == "fc.post"


def test_saelens_reads_a_jumprelu_transcoder(tmp_path):
    config = SAEConfig(kind="jumprelu", latents=64, k=6, epochs=3, batch_size=256)
    ours = fit(ArrayActivations(data()), config, target=ArrayActivations(data(1, 16)))
    save(ours, tmp_path / "sae")
    same(sae_lens.SAE.load_from_disk(str(tmp_path / "sae"), device="cpu"), ours)


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "jumprelu_transcoder"])
@pytest.mark.parametrize("subtracts", [True, False])
def test_a_dictionary_of_saelens_is_read_and_computes_the_same(tmp_path, architecture, subtracts):
    if architecture == "jumprelu_transcoder" and subtracts:
        pytest.skip("a transcoder is given x itself")
    sizes = {"d_in": 24, "d_sae": 64, "apply_b_dec_to_input": subtracts}
    sizes |= {"topk": {"k": 5, "rescale_acts_by_decoder_norm": False}}.get(architecture, {})
    sizes |= {"d_out": 16} if architecture.endswith("transcoder") else {}
    sae_class, config_class = sae_lens.registry.get_sae_class(architecture)
    theirs = sae_class(config_class(**sizes))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.uniform_(0.1, 0.5) if name == "threshold" else parameter.normal_(std=0.3)
    theirs.save_model(tmp_path / "theirs")
    ours = load(tmp_path / "theirs")
    assert isinstance(ours, JumpReLU) == (architecture != "topk")
    same(theirs, ours)
