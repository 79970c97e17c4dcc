"""Dictionaries on disk, in SAELens's layout: `cfg.json` and `sae_weights.safetensors`.

A `TopK` is SAELens's `topk` architecture, a `JumpReLU` (which Batch-Top-K, Matryoshka and Gated become when they are
done) its `jumprelu`, and transcoders are its `transcoder` family, of which it has no Top-K: those are written as
`topk_transcoder`, which only we read (`sae_lens/saes/`, version 6).
"""

import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rl_interp.core.errors import RunError
from rl_interp.core.files import atomic_path, write_json
from rl_interp.core.read import read_json
from rl_interp.core.weights import Held, Weights, with_weights
from rl_interp.sae import saelens
from rl_interp.sae.model import SAE, JumpReLU, TopK
from rl_interp.sae.saelens import CONFIG, WEIGHTS

_AGAIN = "copy the autoencoder again"
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
        if not os.path.isfile(directory / name):
            raise RunError(f"{directory} holds no autoencoder: {name} is missing.")
    return saelens.read(
        read_json(directory / CONFIG, _AGAIN),
        Weights(directory / WEIGHTS, _AGAIN, infinite=("threshold",)).load(),
        directory,
    )


def rebuild(weights: dict[str, Tensor] | Weights, k: int, transcodes: bool) -> SAE:
    """A dictionary from its `state_dict`, or from a file of it: a `JumpReLU` if it holds thresholds, else a `TopK`.

    Raises:
        RunError: the weights are no dictionary's, or not finite.
    """
    file = weights if isinstance(weights, Weights) else Held(weights, "a dictionary's weights", ("threshold",))
    encoder, decoder = file.shapes.get("W_enc", ()), file.shapes.get("W_dec", ())
    if (len(encoder), len(decoder)) != (2, 2) or 0 in (*encoder, *decoder):
        raise RunError(f"{file.path} is no dictionary's: W_enc or W_dec is missing or no matrix; fit it again.")
    (d_in, d_sae), d_out = encoder, decoder[1] if transcodes else None
    if k > d_sae:
        raise RunError(f"{file.path} is of {d_sae} latents, fewer than k={k}; use the config that it was made with.")
    jump = "threshold" in file.shapes
    make = (lambda: JumpReLU(d_in, d_sae, d_out)) if jump else (lambda: TopK(d_in, d_sae, k, d_out))
    return with_weights(make, file, file.path).eval()
