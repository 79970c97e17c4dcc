"""Dictionaries of SAELens: recordings of what it exports (`published_saelens/record.py`), and the package itself where
it is installed, which is large and not part of `dev`: `pip install sae-lens` first."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rl_interp.core.errors import RunError
from rl_interp.sae import SAE, ArrayActivations, JumpReLU, SAEConfig, TopK, fit, load, rebuild, save

RECORDINGS = sorted((Path(__file__).parent / "published_saelens").glob("*.safetensors"))
REFUSED = {
    "abstopk": "its latents may be negative",
    "fit_of_batchtopk": "write it by save_inference_model",
    "fit_of_matryoshka": "write it by save_inference_model",
    "matching_pursuit": "its latents are found one after the other",
    "temporal": "its latents depend on the samples before",
    "layer_norm": "normalize_activations = 'layer_norm'",
    "constant_norm_rescale": "normalize_activations = 'constant_norm_rescale'",
    "expected_average": "normalize_activations = 'expected_average_only_in'",
    "hook_z": "reshape_activations = 'hook_z'",
    "tanh": "activation_fn = 'tanh-relu'",
    "skip_transcoder_of_zeros": "",
    "skip_transcoder": "W_skip leads past the latents",
}
"""What is said of those whose name has this part; the others are read. The first part that is there counts."""


def recorded() -> list[tuple[Path, str]]:
    found = []
    for path in RECORDINGS:
        with safe_open(path, "pt") as file:
            found += [(path, name) for name in sorted(file.metadata())]  # in any order there
    return found


def data(seed: int = 0, width: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).gamma(1.0, 2.0, (2000, width)).astype(np.float32)


def refusal(name: str) -> str:
    return next((sentence for part, sentence in REFUSED.items() if part in name), "")


def close(features: torch.Tensor, reconstruction: torch.Tensor, x: torch.Tensor, ours: SAE) -> None:
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(x), features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(x), reconstruction, rtol=1e-4, atol=1e-4)


def same(theirs, ours: SAE) -> None:
    x = torch.from_numpy(data()[:200])
    with torch.no_grad():
        close(theirs.encode(x), theirs.decode(theirs.encode(x)), x, ours)


@pytest.mark.parametrize(("path", "name"), recorded(), ids=lambda part: getattr(part, "stem", part))
def test_what_saelens_has_written_is_read_and_computes_the_same_or_is_refused_by_name(path, name, tmp_path):
    with safe_open(path, "pt") as file:
        config, keys = json.loads(file.metadata()[name]), [key for key in file.keys() if key.startswith(f"{name}/")]  # noqa: SIM118
        tensors = {key.removeprefix(f"{name}/"): file.get_tensor(key) for key in keys}
    weights = {key.removeprefix("weights/"): tensors.pop(key) for key in list(tensors) if key.startswith("weights/")}
    write(tmp_path, config, weights)
    if sentence := refusal(name):
        with pytest.raises(RunError, match=sentence):
            load(tmp_path)
        return
    ours = load(tmp_path)
    assert isinstance(ours, TopK) == ("topk" in name and "batchtopk" not in name)
    close(tensors["features"], tensors["reconstruction"], tensors["x"], ours)
    save(ours, tmp_path / "again")
    close(tensors["features"], tensors["reconstruction"], tensors["x"], load(tmp_path / "again"))


@pytest.fixture(scope="module")
def sae_lens():
    return pytest.importorskip("sae_lens", reason="needs sae-lens")


def test_what_the_installed_saelens_writes_is_read_and_computes_the_same(sae_lens, tmp_path):
    from published_saelens import record

    for name, theirs in record.exports(tmp_path):
        if not refusal(name):
            x = record.samples(theirs)
            close(**record.computed(theirs, x), x=x, ours=load(tmp_path / name))


@pytest.mark.parametrize("kind", ["topk", "batch_topk", "jumprelu", "gated"])
def test_saelens_reads_an_export_and_computes_the_same(sae_lens, tmp_path, kind):
    ours = fit(ArrayActivations(data()), SAEConfig(variant=kind, latents=64, k=6, epochs=3, batch_size=256))
    save(ours, tmp_path / "sae", {"hook_name": "fc.post"})
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path / "sae"), device="cpu")
    same(theirs, ours)
    assert theirs.cfg.metadata.hook_name == "fc.post"


def test_saelens_reads_a_jumprelu_transcoder(sae_lens, tmp_path):
    config = SAEConfig(variant="jumprelu", latents=64, k=6, epochs=3, batch_size=256)
    ours = fit(ArrayActivations(data()), config, target=ArrayActivations(data(1, 16)))
    save(ours, tmp_path / "sae")
    same(sae_lens.SAE.load_from_disk(str(tmp_path / "sae"), device="cpu"), ours)


def write(directory: Path, config: dict, weights: dict[str, torch.Tensor]) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "cfg.json").write_text(json.dumps(config))
    save_file(weights, directory / "sae_weights.safetensors")
    return directory


@pytest.mark.parametrize(
    ("setting", "tensor", "sentence"),
    [
        ({"sharpness": 2.0}, {}, "sharpness = 2.0; it is not known what that does to 'topk'"),
        ({"k": True}, {}, "k = True; it must be a whole number"),
        ({"k": None}, {}, "k = None; it must be a whole number"),
        ({"apply_b_dec_to_input": "no"}, {}, "apply_b_dec_to_input = 'no'; it must be true or false"),
        ({"architecture": ["topk"]}, {}, r"architecture = \['topk'\]; it must be a name"),
        ({"activation_fn_kwargs": {"postact_fn": "abs"}}, {}, "activation_fn_kwargs = {'postact_fn': 'abs'}"),
        ({}, {"threshold": torch.ones(8)}, "holds threshold, of which a dictionary of this architecture makes no use"),
        ({}, {"W_skip": torch.ones(4, 4)}, "holds W_skip"),
        ({}, {"scaling_factor": 2 * torch.ones(8)}, "holds scaling_factor, and .* finetuning_scaling_factor = False"),
        ({"finetuning_scaling_factor": True}, {}, "scaling_factor is missing"),
        ({}, {"b_dec": torch.full((4,), torch.nan)}, "values in 'b_dec' that are not finite"),
        ({}, {"W_enc": torch.full((4, 8), torch.inf)}, "values in 'W_enc' that are not finite"),
    ],
)
def test_what_would_change_the_result_unseen_is_refused_by_name(tmp_path, setting, tensor, sentence):
    config, weights = json.loads((save(TopK(4, 8, 2), tmp_path / "made") / "cfg.json").read_text()), TopK(4, 8, 2)
    write(tmp_path / "made", config | setting, weights.state_dict() | tensor)
    with pytest.raises(RunError, match=sentence):
        load(tmp_path / "made")


def test_what_changes_nothing_is_read(tmp_path):
    config = json.loads((save(TopK(4, 8, 2), tmp_path / "made") / "cfg.json").read_text())
    weights = TopK(4, 8, 2).state_dict() | {"scaling_factor": torch.ones(8)}
    assert load(write(tmp_path / "made", config | {"sharpness": None, "mirrored": False}, weights)).k == 2
    off = JumpReLU(4, 8).state_dict() | {"threshold": torch.full((8,), torch.inf)}
    del config["k"], config["rescale_acts_by_decoder_norm"]
    assert not load(write(tmp_path / "made", config | {"architecture": "jumprelu"}, off)).encode(torch.ones(1, 4)).any()


def test_weights_that_are_no_numbers_make_no_dictionary():
    with pytest.raises(RunError, match="threshold.*not finite"):
        rebuild(JumpReLU(4, 8).state_dict() | {"threshold": torch.tensor([torch.nan, *[0.0] * 7])}, 0, False)
