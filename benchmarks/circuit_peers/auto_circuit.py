"""AutoCircuit: scores of all edges of a transformer, and ACDC, with the runs of the model that they take.

    python -m benchmarks.circuit_peers.auto_circuit FOLDER STEPS THRESHOLD

FOLDER holds `shape.json`, `weights.npz` by TransformerLens's names, and `prompts.npz`: `clean` and `corrupt [N, S]`, of
one length, `answers` and `wrong [N, 1]`. Prints one JSON object.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from auto_circuit.data import PromptDataLoader, PromptDataset
from auto_circuit.prune_algos.ACDC import acdc_prune_scores
from auto_circuit.prune_algos.mask_gradient import mask_gradient_prune_scores
from auto_circuit.utils.graph_utils import patchable_model
from transformer_lens import HookedTransformer, HookedTransformerConfig


def model_of(folder: Path) -> HookedTransformer:
    config = HookedTransformerConfig(**json.loads((folder / "shape.json").read_text()), seed=0)
    config.use_attn_result = config.use_split_qkv_input = config.use_hook_mlp_in = True
    model = HookedTransformer(config)
    given = {name: torch.from_numpy(value) for name, value in np.load(folder / "weights.npz").items()}
    missing = model.load_state_dict(given, strict=False)
    unknown = [name for name in missing.missing_keys if not name.endswith(("mask", "IGNORE"))]
    if unknown or missing.unexpected_keys:
        raise ValueError(f"weights that are not given: {unknown}; that are not there: {missing.unexpected_keys}")
    return model.eval()


def main(folder: Path, steps: int, threshold: float) -> None:
    torch.set_num_threads(1)
    prompts = {name: torch.from_numpy(value) for name, value in np.load(folder / "prompts.npz").items()}
    data = PromptDataset(prompts["clean"], prompts["corrupt"], list(prompts["answers"]), list(prompts["wrong"]))
    loader = PromptDataLoader(data, seq_len=None, diverge_idx=0, batch_size=len(data), shuffle=False)
    model = patchable_model(model_of(folder), factorized=True, slice_output="last_seq", separate_qkv=True)
    with torch.no_grad():
        found = {"logits": model(prompts["clean"])[:, -1].tolist(), "edges": len(model.edges)}
    runs = [0]
    model.register_forward_pre_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))

    def timed(name, search):
        runs[0], start = 0, time.process_time()
        scores = search()
        by_edge = {edge.name: scores[edge.dest.module_name][edge.patch_idx].item() for edge in model.edges}
        found[name] = {"seconds": time.process_time() - start, "runs": runs[0], "scores": by_edge}

    gradients = {"grad_function": "logit", "answer_function": "avg_diff"}
    timed("eap", lambda: mask_gradient_prune_scores(model, loader, None, mask_val=0.0, **gradients))
    model.zero_grad()
    timed("eap-ig", lambda: mask_gradient_prune_scores(model, loader, None, integrated_grad_samples=steps, **gradients))
    exponent = int(np.floor(np.log10(threshold)))
    base = threshold / 10.0**exponent
    timed("acdc", lambda: acdc_prune_scores(model, loader, None, tao_exps=[exponent], tao_bases=[base]))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
