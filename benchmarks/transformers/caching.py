"""What it costs to keep four points of a forward pass: `run_with_cache` beside TransformerLens and nnsight, each as a
ratio to its own bare forward, nnsight to that of the plain transformers model.

    pip install transformer-lens==4.3.0 nnsight==0.8.1     # without them only ours is measured
    python -m benchmarks.transformers.caching

Two sizes: a model as small as those that are trained here, and GPT-2's smallest. Medians over turns in which all take
their place, processor time, one thread. Weights are random, as they do not matter for the time.
"""

import copy
import importlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rl_interp.agents.transformer import Transformer
from rl_interp.agents.transformer.config import Architecture
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.tables import markdown

SIZES = {  # layers, width, heads, hidden, vocabulary; texts, words; turns
    "small": (3, 64, 4, 256, 100, 32, 20, 101),
    "GPT-2": (12, 768, 12, 3072, 5000, 8, 32, 15),
}


def forwards(size: str) -> dict[str, Callable[[], object]]:
    """What each library does with the same words."""
    layers, width, heads, hidden, vocabulary, texts, words, _ = SIZES[size]
    agent = Transformer(Architecture(
        layers=layers, width=width, heads=heads, hidden=hidden, vocabulary=vocabulary, context=words
    )).eval()  # fmt: skip
    obs = torch.randint(vocabulary, (texts, words))
    points = ["block0.mlp", "block0.sum", "block1.attention", f"block{layers - 1}.sum"]
    calls = {"ours, bare": lambda: agent.step(obs), "ours, cached": lambda: run_with_cache(agent, obs, names=points)}
    try:
        from nnsight import NNsight
        from tokenizers import Tokenizer, models
        from transformer_lens import TransformerBridge

        transformers: Any = importlib.import_module("transformers")  # type checkers do not see through its lazy names
    except ModuleNotFoundError as missing:
        print(f"without peers: {missing}")
        return calls
    plain = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_layer=layers, n_embd=width, n_head=heads, n_inner=hidden, n_positions=words, vocab_size=vocabulary
    )).eval()  # fmt: skip
    names = {f"w{i}": i for i in range(vocabulary)}
    with tempfile.TemporaryDirectory() as folder:  # both ask for files, and nothing is downloaded
        plain.save_pretrained(folder)
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(names, unk_token="w0")),
            bos_token="w1", eos_token="w2", pad_token="w2",
        ).save_pretrained(folder)  # fmt: skip
        bridge = TransformerBridge.boot_transformers(
            folder, hf_model=copy.deepcopy(plain), tokenizer=transformers.AutoTokenizer.from_pretrained(folder)
        )
    lens_points = [f"blocks.{point}.hook_out" for point in ("0.mlp", "0", "1.attn", layers - 1)]
    seen = NNsight(copy.deepcopy(plain))

    def traced() -> object:
        with seen.trace(obs):
            mlp = seen.transformer.h[0].mlp.output.save()
            first = seen.transformer.h[0].output[0].save()
            attention = seen.transformer.h[1].attn.output[0].save()
            last = seen.transformer.h[layers - 1].output[0].save()
        return mlp, first, attention, last

    return calls | {
        "transformers, bare": lambda: plain(obs),
        "TransformerLens, bare": lambda: bridge(obs),
        "TransformerLens, cached": lambda: bridge.run_with_cache(obs, names_filter=lens_points),
        "nnsight, cached": traced,
    }


@torch.no_grad()
def measure(size: str) -> None:
    """Print the table of one size."""
    calls, took = forwards(size), {}
    for turn in range(SIZES[size][-1] + 2):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if turn >= 2:
                took.setdefault(name, []).append(time.process_time() - start)
    median = {name: float(np.median(seconds)) for name, seconds in took.items()}
    bare = {"ours, cached": "ours, bare", "TransformerLens, cached": "TransformerLens, bare"}
    rows = []
    for name, seconds in median.items():
        own = bare.get(name, "transformers, bare" if name.startswith("nnsight") else None)
        ratio = np.median(np.divide(took[name], took[own])) if own else None
        rows.append([name, f"{1e3 * seconds:.2f}", f"{ratio:.2f}" if ratio else ""])
    print(f"\n{size}: {SIZES[size]}\n\n" + markdown(["", "ms", "times its bare forward"], rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in SIZES:
        measure(each)
