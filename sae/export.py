"""Autoencoders on disk, in SAELens's layout: `cfg.json` and `sae_weights.safetensors`.

Latents are those of SAELens's `topk` architecture: x − b_dec enters the encoder, and the K largest
pre-activations are kept where they are positive.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from rl_interp.core.errors import RunError
from rl_interp.core.files import atomic_path, write_json
from sae.model import TopK

_WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")


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
        "metadata": metadata or {},
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
        RunError: a file is missing, the architecture is another one, or a weight has another shape.
    """
    directory = Path(directory)
    for name in ("cfg.json", "sae_weights.safetensors"):
        if not (directory / name).is_file():
            raise RunError(f"{directory} holds no autoencoder: {name} is missing.")
    config = json.loads((directory / "cfg.json").read_text(encoding="utf-8"))
    wanted = {
        "architecture": "topk",
        "normalize_activations": "none",
        "apply_b_dec_to_input": True,
        "rescale_acts_by_decoder_norm": False,
    }
    for key, value in wanted.items():
        if config.get(key, value) != value:
            raise RunError(f"{directory}/cfg.json has {key} = {config[key]!r}; only {value!r} can be read.")
    sae = TopK(config["d_in"], config["d_sae"], config["k"])
    weights = load_file(directory / "sae_weights.safetensors")
    for name in _WEIGHTS:
        have = tuple(weights[name].shape) if name in weights else "missing"
        want = tuple(getattr(sae, name).shape)
        if have != want:
            raise RunError(f"{directory}/sae_weights.safetensors: {name} is {have}, cfg.json says {want}.")
    sae.load_state_dict({name: weights[name].float() for name in _WEIGHTS})
    return sae.eval()
