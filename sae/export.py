"""Autoencoders on disk, in SAELens's layout: `cfg.json` and `sae_weights.safetensors`.

Latents are those of SAELens's `topk` architecture: x − b_dec enters the encoder, and the K largest
pre-activations are kept where they are positive (`sae_lens/saes/topk_sae.py`, version 6).
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rl_interp.core.errors import RunError
from rl_interp.core.files import atomic_path, write_json
from sae.model import TopK

_WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")
_LAYOUT = "6.0.0"
"""The oldest SAELens that reads this layout. Without it in the metadata SAELens takes the file for an older
one, converts it, and loses the metadata on the way."""


def save(sae: TopK, directory: Path | str, metadata: dict[str, Any] | None = None) -> Path:
    """Write the autoencoder to `directory`, which appears whole or not at all.

    Args:
        metadata: where it comes from: run, checkpoint step, hook name.
    """
    directory = Path(directory)
    config = {
        "architecture": "topk",
        "k": sae.k,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"sae_lens_version": _LAYOUT, "sae_lens_training_version": None} | (metadata or {}),
    }
    with atomic_path(directory) as temporary:
        temporary.mkdir()
        write_json(temporary / "cfg.json", config)
        save_file(
            {name: getattr(sae, name).detach().cpu().contiguous() for name in _WEIGHTS},
            temporary / "sae_weights.safetensors",
        )
    return directory


def load(directory: Path | str) -> TopK:
    """Read an autoencoder that `save`, or SAELens with the `topk` architecture, has written.

    Raises:
        RunError: a file is missing or damaged, the architecture is another one, or a weight has another shape.
    """
    directory = Path(directory)
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (directory / name).is_file():
            raise RunError(f"{directory} holds no autoencoder: {name} is missing.")
    config = _read_config(directory / "cfg.json")
    weights = _read_weights(directory / "sae_weights.safetensors")
    sae = TopK(config["d_in"], config["d_sae"], config["k"])
    for name in _WEIGHTS:
        have, want = tuple(weights[name].shape) if name in weights else "missing", tuple(getattr(sae, name).shape)
        if have != want:
            raise RunError(f"{directory}/sae_weights.safetensors: {name} is {have}, cfg.json says {want}.")
    sae.load_state_dict({name: weights[name].float() for name in _WEIGHTS})
    return sae.eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is no JSON ({error}); copy the autoencoder again.") from None
    wanted = {
        "architecture": "topk",
        "normalize_activations": "none",
        "reshape_activations": "none",
        "apply_b_dec_to_input": True,
        "rescale_acts_by_decoder_norm": False,
    }
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise RunError(f"{path} has {key} = {config[key]!r}; only {value!r} can be read.")
    for key in ("d_in", "d_sae", "k"):
        if not isinstance(config.get(key), int) or config[key] < 1:
            raise RunError(f"{path} has {key} = {config.get(key)!r}; it must be a whole number of at least 1.")
    if config["k"] > config["d_sae"]:
        raise RunError(f"{path} has k = {config['k']}, more than its d_sae = {config['d_sae']} latents.")
    return config


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged ({error}); copy the autoencoder again.") from None
