"""Language models of other programs' compute here what they compute there."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rl_interp.agents.load import load_agent
from rl_interp.agents.pretrained import lm
from rl_interp.agents.pretrained.lm import read_model, require_memory
from rl_interp.agents.pretrained.runs import import_lm
from rl_interp.agents.transformer import Transformer
from rl_interp.core.errors import RunError, UserError

SAVED = Path(__file__).parents[1] / "oracles" / "lm"
"""Tiny models as transformers 5.24.0 writes them, and its logits of the last of nine tokens."""
KINDS = ["gpt2", "llama"]


@pytest.fixture
def folder(tmp_path, request):
    found = tmp_path / "model"
    shutil.copytree(SAVED / getattr(request, "param", "llama"), found)
    shutil.copy(SAVED / "tokenizer.json", found)
    return found


def logits(source, tokens):
    read = read_model(str(source))
    agent = Transformer(read.shape).eval()
    agent.load_state_dict(dict(read.weights))
    with torch.no_grad():
        return agent.step(tokens).logits


@pytest.mark.parametrize(("folder", "kind"), [(kind, kind) for kind in KINDS], indirect=["folder"])
def test_a_folder_computes_what_transformers_does(folder, kind):
    known = load_file(SAVED / f"{kind}.safetensors")
    assert known["logits"].std() > 0.3
    assert torch.allclose(logits(folder, known["tokens"]), known["logits"], atol=1e-4)


def test_weights_in_several_files_are_one_model(folder):
    known, whole = load_file(SAVED / "llama.safetensors"), load_file(folder / "model.safetensors")
    names = sorted(whole)
    for number, some in enumerate((names[::2], names[1::2])):
        save_file({name: whole[name] for name in some}, folder / f"model-{number}.safetensors")
    (folder / "model.safetensors").unlink()
    assert torch.allclose(logits(folder, known["tokens"]), known["logits"], atol=1e-4)


def test_a_gguf_file_computes_what_its_folder_does(folder, tmp_path):
    gguf = pytest.importorskip("gguf")
    config, whole = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    for name, value in (
        ("block_count", 2), ("context_length", 32), ("embedding_length", 8), ("feed_forward_length", 12),
        ("attention.head_count", 2), ("attention.head_count_kv", 1),
    ):  # fmt: skip
        writer.add_uint32(f"llama.{name}", value)
    writer.add_float32("llama.rope.freq_base", 5000.0)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    numbers = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(numbers, key=numbers.__getitem__))
    writer.add_token_types([1] * len(numbers))
    writer.add_token_merges(["a b"])
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    for number in range(2):
        names |= {f"model.layers.{number}.{lm._LLAMA[ours]}": f"blk.{number}.{lm._GGUF[ours]}" for ours in lm._LLAMA}
    for theirs, name in names.items():
        value = whole[f"{theirs}.weight"].float().numpy()
        if heads := {"q_proj": 2, "k_proj": 1}.get(theirs.rpartition(".")[2]):  # as llama.cpp's converter permutes
            value = value.reshape(heads, 2, len(value) // heads // 2, -1).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(f"{name}.weight", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    known = load_file(SAVED / "llama.safetensors")
    assert torch.allclose(logits(tmp_path / "model.gguf", known["tokens"]), known["logits"], atol=1e-4)


def test_an_imported_model_is_a_run_whose_prompts_are_in_its_tokens(folder, tmp_path):
    pytest.importorskip("tokenizers")
    found = import_lm(str(folder), "ioi", tmp_path / "run")
    assert (found["layers"], found["kv_heads"], found["vocabulary"]) == (2, 1, 559)
    loaded = load_agent(tmp_path / "run")
    from rl_interp.core.envs import make_labelled

    env = make_labelled(loaded.env)
    obs, _ = env.reset(seed=0)
    said = "".join(loaded.env.action_names[number] for number in obs if number >= 0).replace("Ġ", " ")
    assert said.split() == " ".join(env.prompt.words[1:]).replace(" ,", ",").replace(" .", ".").split()
    right = loaded.env.action_names.index("Ġ" + env.prompt.right[0])
    assert env.step(right)[1] == 1.0
    with torch.no_grad():
        assert loaded.agent.step(torch.from_numpy(obs[None])).logits.shape == (1, 559)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused(folder, missing):
    (folder / missing).unlink()
    said = "*.safetensors" if missing.startswith("model") else missing
    with pytest.raises(RunError, match=re.escape(f"has no {said}") + "; give a folder with config.json, "):
        read_model(str(folder))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mamba"}, "is a model of type 'mamba'; models of the types gpt2 and llama are read"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "its rotary positions are scaled"),
        ({"hidden_act": "gelu"}, "its hidden_act is 'gelu'; models with 'silu' are read"),
        ({"head_dim": 8}, "its heads are 8 wide"),
        ({"num_hidden_layers": 3}, "has no 'model.layers.2.input_layernorm.weight'"),
    ],
)
def test_an_architecture_that_is_not_read_is_refused(folder, change, said):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(RunError, match=said):
        read_model(str(folder))


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(RunError, match="is no folder; give a folder with config.json.* or a name: smollm2"):
        read_model(str(tmp_path / "nothing"))


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="free memory is not known")
def test_a_model_too_large_for_memory_is_refused():
    with pytest.raises(UserError, match=r"a model of 1,000,000,000,000 weights needs 7450.6 GiB while it is read"):
        require_memory(10**12)
