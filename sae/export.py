"""Dictionaries on disk, in SAELens's layout: `cfg.json` and `sae_weights.safetensors`.

A `TopK` is SAELens's `topk` architecture, a `JumpReLU` (which Batch-Top-K, Matryoshka and Gated become when they are
done) its `jumprelu`, and transcoders are its `transcoder` family, of which it has no Top-K: those are written as
`topk_transcoder`, which only we read (`sae_lens/saes/`, version 6).
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rl_interp.core.errors import RunError
from rl_interp.core.files import atomic_path, write_json
from sae import saelens
from sae.model import SAE, JumpReLU, TopK
from sae.saelens import CONFIG, WEIGHTS

_LAYOUT = "6.0.0"
"""The oldest SAELens that reads this layout. Without it in the metadata SAELens takes the file for an older
one, converts it, and loses the metadata on the way."""


def save(sae: SAE, directory: Path | str, metadata: dict[str, Any] | None = None) -> Path:
    """Write the dictionary to `directory`, which appears whole or not at all, in the place of another dictionary only.

    Args:
        metadata: where it comes from: run, checkpoint step, hook name; added to what the dictionary knows of it.

    Raises:
        RunError: the directory holds anything but a dictionary, or the disk is full.
    """
    directory = Path(directory)
    config: dict[str, Any] = {
        "architecture": ("topk" if isinstance(sae, TopK) else "jumprelu") + "_transcoder" * sae.transcodes,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": not sae.transcodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_training_version": None}
        | sae.metadata
        | (metadata or {})
        | {"sae_lens_version": _LAYOUT},
    }
    if isinstance(sae, TopK):
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    if sae.transcodes:
        config |= {"d_out": sae.d_out}
    with atomic_path(directory, (CONFIG, WEIGHTS)) as temporary:
        temporary.mkdir()
        write_json(temporary / CONFIG, config)
        weights = {name: value.detach().cpu().contiguous() for name, value in sae.state_dict().items()}
        save_file(weights, temporary / WEIGHTS)
    return directory


def load(directory: Path | str) -> SAE:
    """Read a dictionary, with its metadata, that `save` or SAELens has written; see `sae.saelens` for what is read.

    Raises:
        RunError: a file is missing or damaged, or holds what can't be read.
    """
    directory = Path(directory)
    for name in (CONFIG, WEIGHTS):
        if not (directory / name).is_file():
            raise RunError(f"{directory} holds no autoencoder: {name} is missing.")
    return saelens.read(_read_config(directory / CONFIG), _read_weights(directory / WEIGHTS), directory)


def rebuild(weights: dict[str, Tensor], k: int, transcodes: bool) -> SAE:
    """A dictionary from its `state_dict`: a `JumpReLU` if it holds thresholds, else a `TopK`.

    Raises:
        RunError: a weight is not finite.
    """
    saelens.check_finite(weights, "a dictionary's weights")
    (d_in, d_sae), d_out = weights["W_enc"].shape, weights["W_dec"].shape[1] if transcodes else None
    sae = JumpReLU(d_in, d_sae, d_out) if "threshold" in weights else TopK(d_in, d_sae, k, d_out)
    sae.load_state_dict(weights)
    return sae.eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is no JSON ({error}); copy the autoencoder again.") from None
    if not isinstance(config, dict):
        raise RunError(f"{path} holds no object; copy the autoencoder again.")
    return config


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged ({error}); copy the autoencoder again.") from None
