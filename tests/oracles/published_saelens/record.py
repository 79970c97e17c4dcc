"""Write the recordings beside this file: small dictionaries by SAELens itself, and what it makes of some samples.

    pip install sae-lens==6.54.12 && python tests/oracles/published_saelens/record.py
    pip install sae-lens==5.11.0 && python tests/oracles/published_saelens/record.py

and so on for the versions that are recorded, each in a file: of every dictionary the tensors as exported, samples `x`,
and SAELens's `features` and `reconstruction` of them; the `cfg.json` is metadata.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import sae_lens
import torch
from safetensors.torch import load_file, save_file

D_IN, D_SAE, D_OUT, K, SAMPLES = 6, 12, 5, 3, 24
OLD = {
    "architecture": "standard",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "activation_fn_str": "relu",
    "activation_fn_kwargs": {},
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "context_size": 128,
    "model_name": "pythia-70m",
    "hook_name": "blocks.0.hook_resid_pre",
    "hook_layer": 0,
    "hook_head_index": None,
    "prepend_bos": True,
    "dataset_path": "",
    "dataset_trust_remote_code": True,
    "normalize_activations": "none",
    "dtype": "float32",
    "device": "cpu",
    "sae_lens_training_version": None,
}


def exports(directory: Path) -> Iterator[tuple[str, Any]]:
    """What the installed version exports, each written to `directory / name`, and the module that it is."""
    torch.manual_seed(0)
    yield from _older(directory) if int(sae_lens.__version__.split(".")[0]) < 6 else _present(directory)


def _present(directory: Path) -> Iterator[tuple[str, Any]]:
    """Every kind of dictionary and every kind of fit, with its defaults, and each setting that some have."""
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    for name, (make, config) in SAE_CLASS_REGISTRY.items():
        transcodes = "transcoder" in name
        settings = [("", {})]
        if not transcodes and name not in ("matching_pursuit", "temporal"):
            settings += [("without_b_dec", {"apply_b_dec_to_input": False})]
        if "rescale_acts_by_decoder_norm" in {field.name for field in fields(config)}:
            settings += [("rescaled", {"rescale_acts_by_decoder_norm": True})]
        if name == "standard":
            kinds = ("layer_norm", "constant_norm_rescale", "expected_average_only_in")
            settings += [(kind, {"normalize_activations": kind}) for kind in kinds]
            settings += [("hook_z", {"reshape_activations": "hook_z"})]
        for label, setting in settings:
            module = make(config(**_sizes(config), **setting))
            _randomise(module)
            yield _written(module, directory, f"{name}_{label}".strip("_"))
            if hasattr(module, "W_skip"):
                module.W_skip.data.zero_()
                yield _written(module, directory, f"{name}_of_zeros")
    for name, (make, config) in SAE_TRAINING_CLASS_REGISTRY.items():
        extra = {"matryoshka_widths": [4, D_SAE]} if "matryoshka" in name else {}
        module = make(config(**_sizes(config), **extra))
        _randomise(module)
        yield _written(module, directory, f"fit_of_{name}")
        folder = directory / f"fitted_{name}"
        module.save_inference_model(folder)
        yield folder.name, sae_lens.SAE.load_from_disk(str(folder), device="cpu")


def _sizes(config: Any) -> dict[str, Any]:
    """The sizes that the kind has; of a temporal one, the least that its attention takes."""
    known = {field.name for field in fields(config)}
    sizes = {"d_in": D_IN, "d_sae": D_SAE, "d_out": D_OUT, "k": K, "apply_b_dec_to_input": False}
    if "d_out" not in known:
        del sizes["apply_b_dec_to_input"]
    if config.architecture() == "temporal":
        sizes |= {"d_in": 8, "bottleneck_factor": 2, "n_heads": 2, "kval_topk": K, "sae_diff_type": "topk"}
    return {name: value for name, value in sizes.items() if name in known}


def _older(directory: Path) -> Iterator[tuple[str, Any]]:
    """The architectures of versions 3 to 5, and each setting that changes what a dictionary does."""
    topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    cases = {name: {"architecture": name} for name in ("standard", "gated", "jumprelu")}
    cases |= {f"{name}_without_b_dec": {**setting, "apply_b_dec_to_input": False} for name, setting in cases.items()}
    cases |= {f"{name}_finetuned": {"architecture": name, "finetuning_scaling_factor": True} for name in ("standard",)}
    cases |= {"standard_as_topk": topk, "topk": {"architecture": "topk", **topk}}
    cases |= {f"standard_{kind}": {"normalize_activations": kind} for kind in ("layer_norm", "constant_norm_rescale")}
    cases |= {"standard_tanh": {"activation_fn_str": "tanh-relu"}, "standard_hook_z": {"hook_name": "attn.hook_z"}}
    for name, setting in cases.items():
        try:
            module = sae_lens.SAE(sae_lens.SAEConfig.from_dict(OLD | setting))
        except ValueError:  # an architecture of a later version
            continue
        _randomise(module)
        yield _written(module, directory, name)


@torch.no_grad()
def _randomise(module: Any) -> None:
    for name, parameter in module.named_parameters():
        positive = name in ("threshold", "log_threshold", "finetuning_scaling_factor")
        parameter.uniform_(0.1, 0.5) if positive else parameter.normal_(std=0.4)
    for name, buffer in module.named_buffers():
        if name == "topk_threshold":
            buffer.fill_(0.3)


def _written(module: Any, directory: Path, name: str) -> tuple[str, Any]:
    module.save_model(directory / name)
    return name, module


def samples(module: Any) -> torch.Tensor:
    return torch.randn(SAMPLES, module.cfg.d_in, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def computed(module: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """What SAELens makes of `x`; nothing where it takes no such samples."""
    try:
        features = module.eval().encode(x)
        return {"features": features.to_dense().contiguous(), "reconstruction": module(x).contiguous()}
    except Exception as error:  # of whatever kind the architecture has: several tokens, or heads
        print(f"  no features: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
        return {}


def record(directory: Path) -> None:
    tensors, configs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module in exports(Path(folder)):
            print(name)
            x, files = samples(module), Path(folder) / name
            found = {"x": x} | computed(module, x)
            found |= {f"weights/{key}": value for key, value in load_file(files / "sae_weights.safetensors").items()}
            tensors |= {f"{name}/{key}": value for key, value in found.items()}
            configs[name] = (files / "cfg.json").read_text()
    save_file(tensors, directory / f"{sae_lens.__version__}.safetensors", configs)


if __name__ == "__main__":
    record(Path(__file__).parent)
