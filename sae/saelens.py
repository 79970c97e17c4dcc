"""What SAELens has written, versions 3 to 6, as a `TopK` or a `JumpReLU`.

A setting or a tensor that changes features or reconstructions is folded into the weights; one that can't be, or that
is not known, is refused by its name. Settings are those of `sae_lens/saes/` (6.54) and, in older files, of
`sae_lens/sae.py` (3.23, 4.4, 5.11).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rl_interp.core.errors import RunError
from rl_interp.core.weights import require_finite
from rl_interp.sae.model import SAE, JumpReLU, TopK

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


def read(config: dict[str, Any], weights: dict[str, Tensor], directory: Path) -> SAE:
    """The dictionary of `cfg.json` and `sae_weights.safetensors` in `directory`, in the memory of `weights`.

    Raises:
        RunError: it is of a kind that can't be read, or a setting or tensor is missing, of another shape, or
            not known.
    """
    form = _form(config, directory / CONFIG)
    weights = {name: value.float() for name, value in weights.items()}
    _check_tensors(weights, form, directory / WEIGHTS)
    size = form.d_in, form.d_sae
    folded = _folded(weights, form)
    for name, tensor in folded.items():
        require_finite(tensor, name, directory / WEIGHTS, infinite=name == "threshold")
    with torch.device("meta"):
        sae = TopK(*size, form.k, form.d_out) if form.k else JumpReLU(*size, form.d_out)
    sae.load_state_dict(folded, assign=True)
    sae.metadata = form.metadata
    return sae.eval()


_TENSORS = {
    "topk": ("b_enc",),
    "standard": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
"""The architectures that can be read, and what each has for every latent beside its directions. Also read are the
transcoders of all but the last; of SAELens's `transcoder`, as of `standard`, all positive latents are active."""

_ARCHITECTURES = {
    **{name: name for name in _TENSORS},
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "topk_transcoder": "topk",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}

_UNREADABLE = {
    "abstopk": "its latents may be negative",
    "batchtopk": "it is a fit, in which samples share latents; write it by save_inference_model",
    "matryoshka_batchtopk": "it is a fit, in which samples share latents; write it by save_inference_model",
    "matching_pursuit": "its latents are found one after the other",
    "temporal": "its latents depend on the samples before",
}

_ONLY = {
    "normalize_activations": ("none", "scales each sample, by what is not in the file or not linear"),
    "reshape_activations": ("none", "is for the heads of a transformer"),
    "activation_fn": ("relu", "is another function"),
    "activation_fn_kwargs": ({}, "changes the activation function"),
}
"""Settings that can't be folded in: the one value that can be read, and what others do."""

_KNOWN = {
    *("architecture", "d_in", "d_sae", "dtype", "device", "metadata", *_ONLY),
    *("apply_b_dec_to_input", "finetuning_scaling_factor"),
}
_OF_TOPK, _OF_TRANSCODERS = {"k", "rescale_acts_by_decoder_norm"}, {"d_out"}
_OF_FITTING = {
    *("decoder_init_norm", "l1_coefficient", "l1_warm_up_steps", "lp_norm", "aux_loss_coefficient"),
    *("use_sparse_activations", "l0_coefficient", "l0_warm_up_steps", "pre_act_loss_coefficient", "target_l0"),
    *("jumprelu_bandwidth", "jumprelu_init_threshold", "jumprelu_sparsity_loss_mode", "jumprelu_ste_to_input"),
    "jumprelu_tanh_scale",
}
"""Settings of a loss, which stand beside the others in the checkpoints of a fit."""

_ORIGIN = ("model_name", "hook_name", "hook_layer", "hook_head_index", "dataset_path", "sae_lens_training_version")
"""What older versions say of where a dictionary comes from, beside its settings."""


@dataclass(frozen=True)
class _Form:
    """A configuration that can be read."""

    kind: str
    """A key of `_TENSORS`."""
    d_in: int
    d_sae: int
    d_out: int | None
    """Of a transcoder."""
    k: int
    """0 if the kind has none."""
    skips: bool
    subtracts: bool
    """Whether an autoencoder is given x − b_dec."""
    rescaled: bool
    """Whether latents are chosen, and given out, times the norms of their rows of the decoder."""
    finetuned: bool
    """Whether latents are decoded times a factor each."""
    metadata: dict[str, Any]


def _form(config: dict[str, Any], path: Path) -> _Form:
    older = "metadata" not in config
    config = _as_today(config, path)
    architecture = config["architecture"]
    if not isinstance(architecture, str):
        raise RunError(f"{path} has architecture = {architecture!r}; it must be a name.")
    if architecture in _UNREADABLE:
        raise RunError(f"{path} has architecture = {architecture!r}, which can't be read: {_UNREADABLE[architecture]}.")
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise RunError(f"{path} has architecture = {architecture!r}; those that can be read: {known}.")
    kind, transcodes = _ARCHITECTURES[architecture], architecture.endswith("transcoder")
    known = _KNOWN | _OF_FITTING | (_OF_TOPK if kind == "topk" else set()) | (_OF_TRANSCODERS if transcodes else set())
    unknown = [name for name, value in config.items() if name not in known and value not in (False, "none")]
    if unknown and not older:
        raise RunError(
            f"{path} has {unknown[0]} = {config[unknown[0]]!r}; it is not known what that does to {architecture!r}."
        )
    for name, (value, does) in _ONLY.items():
        if config[name] != value:
            raise RunError(f"{path} has {name} = {config[name]!r}, which {does}; only {value!r} can be read.")
    form = _Form(
        kind,
        _size(config, "d_in", path),
        _size(config, "d_sae", path),
        _size(config, "d_out", path) if transcodes else None,
        _size(config, "k", path) if kind == "topk" else 0,
        skips="skip" in architecture,
        subtracts=_flag(config, "apply_b_dec_to_input", path) and not transcodes,
        rescaled=kind == "topk" and _flag(config, "rescale_acts_by_decoder_norm", path),
        finetuned=_flag(config, "finetuning_scaling_factor", path),
        metadata=config["metadata"],
    )
    if form.k > form.d_sae:
        raise RunError(f"{path} has k = {form.k}, more than its d_sae = {form.d_sae} latents.")
    return form


def _as_today(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """The same configuration with the names of version 6, and with what is left out.

    Until version 6 a Top-K was an activation function of the architecture `standard`, and everything about the fit and
    the language model stood beside the settings; that is `metadata` now, so another setting may mean anything.
    """
    config = {_RENAMED.get(name, name): value for name, value in config.items()}
    older = "metadata" not in config
    hook = str(config.get("hook_name"))
    defaults = {
        "architecture": "standard",
        "activation_fn": "relu",
        "activation_fn_kwargs": {},
        "apply_b_dec_to_input": True,
        "rescale_acts_by_decoder_norm": False,
        "finetuning_scaling_factor": False,
        "normalize_activations": "none",
        "reshape_activations": "hook_z" if older and hook.endswith("_z") else "none",
        "metadata": {name: config[name] for name in _ORIGIN if name in config} if older else {},
    }
    config = defaults | {name: value for name, value in config.items() if value is not None}
    if isinstance(config["normalize_activations"], bool):
        config["normalize_activations"] = "expected_average_only_in" if config["normalize_activations"] else "none"
    if (config["architecture"], config["activation_fn"]) in (("standard", "topk"), ("topk", "topk")):
        config |= {"architecture": "topk", "activation_fn": "relu"}
    for name in ("metadata", "activation_fn_kwargs"):
        if not isinstance(config[name], dict):
            raise RunError(f"{path} has {name} = {config[name]!r}; it must be an object, or left out.")
    if config["architecture"] == "topk":
        extra = dict(config["activation_fn_kwargs"])
        config |= {"k": config.get("k", extra.pop("k", None)), "activation_fn_kwargs": extra}
    return config


_RENAMED = {"activation_fn_str": "activation_fn", "hook_point": "hook_name", "hook_point_layer": "hook_layer"}


def _size(config: dict[str, Any], name: str, path: Path) -> int:
    value = config.get(name)
    if type(value) is not int or value < 1:
        raise RunError(f"{path} has {name} = {value!r}; it must be a whole number of at least 1.")
    return value


def _flag(config: dict[str, Any], name: str, path: Path) -> bool:
    if not isinstance(config[name], bool):
        raise RunError(f"{path} has {name} = {config[name]!r}; it must be true or false.")
    return config[name]


def _check_tensors(weights: dict[str, Tensor], form: _Form, path: Path) -> None:
    d_out = form.d_out or form.d_in
    wanted = {"W_enc": (form.d_in, form.d_sae), "W_dec": (form.d_sae, d_out), "b_dec": (d_out,)}
    wanted |= {name: (form.d_sae,) for name in _TENSORS[form.kind]}
    wanted |= {"W_skip": (d_out, form.d_in)} if form.skips else {}
    factors = [name for name in _FACTORS if name in weights]
    wanted |= {name: (form.d_sae,) for name in factors or _FACTORS[:1] if factors or form.finetuned}
    for name, want in wanted.items():
        have = tuple(weights[name].shape) if name in weights else "missing"
        if have != want:
            raise RunError(f"{path}: {name} is {have}, {CONFIG} says {want}.")
    if unknown := sorted(weights.keys() - wanted.keys()):
        raise RunError(f"{path} holds {unknown[0]}, of which a dictionary of this architecture makes no use.")
    if form.skips and weights["W_skip"].any():
        raise RunError(f"{path}: W_skip leads past the latents, which can't be read; only zeros can.")
    for name in factors:
        if not form.finetuned and (weights[name] != 1).any():
            raise RunError(f"{path} holds {name}, and {CONFIG} says finetuning_scaling_factor = False.")


_FACTORS = ("scaling_factor", "finetuning_scaling_factor")
"""Names that versions 3 to 5 gave to a factor for each latent, applied before decoding."""


def _folded(weights: dict[str, Tensor], form: _Form) -> dict[str, Tensor]:
    """The weights of a `TopK` or a `JumpReLU` that computes the same."""
    encoder, decoder, b_dec = (weights[name] for name in ("W_enc", "W_dec", "b_dec"))
    b_enc, threshold = weights.get("b_enc"), weights.get("threshold", torch.zeros(form.d_sae))
    if form.kind == "gated":  # open if π + b_gate > 0, which is e^r π + b_mag > b_mag − e^r b_gate
        scale = weights["r_mag"].exp()
        encoder, b_enc, threshold = encoder.mul_(scale), weights["b_mag"], weights["b_mag"] - scale * weights["b_gate"]
    assert b_enc is not None
    if form.rescaled:
        norm = decoder.norm(dim=1)
        encoder, b_enc, decoder = encoder.mul_(norm), b_enc * norm, decoder.div_(norm.clamp_min(1e-12)[:, None])
    for name in _FACTORS:
        decoder = decoder.mul_(weights[name][:, None]) if name in weights else decoder
    if form.d_out is None and not form.subtracts:  # ours always does
        b_enc = b_enc + b_dec @ encoder
    folded = {"W_enc": encoder, "b_enc": b_enc, "W_dec": decoder, "b_dec": b_dec}
    return folded if form.k else folded | {"threshold": threshold}
