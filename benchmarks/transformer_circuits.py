"""Edge attributions a second, of all edges of a small transformer on prompts about two names, beside AutoCircuit 1.0.1.

Both are asked for the same numbers: the derivative by each edge's mask of the difference of two logits, at one place
and summed over a way; edges are between heads, MLPs, embedding and unembedding, queries, keys and values apart. The
details say how far the scores are apart, and what ACDC takes and leaves with either. Processor time, one thread.

AutoCircuit needs versions of its neighbours that go together no longer in a current environment:

    python -m venv .peers/auto_circuit && .peers/auto_circuit/bin/pip install torch auto-circuit==1.0.1 \\
        transformer-lens==2.0.0 "transformers<4.45" "numpy<2" "pyarrow<20" "datasets<3.2" typeguard==2.13.3

`RL_INTERP_TEXT_RUN` names a run of `train transformer --task ioi`; without it one is trained first, for a minute.
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Result, main
from benchmarks.sae_fit import ROOT, python_of
from rl_interp.agents.load import Loaded, load_agent
from rl_interp.agents.transformer.agent import Transformer
from rl_interp.agents.transformer.config import Architecture
from rl_interp.analysis.circuits.states import play_states
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.acdc import ACDCConfig, acdc
from rl_interp.circuits.discovery.attribution import gradient
from rl_interp.circuits.graph import Graph
from rl_interp.circuits.mask import Mask
from rl_interp.circuits.masked import counted
from rl_interp.circuits.states import States

PROMPTS, STEPS, THRESHOLD = 48, 5, 0.003


def prompts_of(loaded: Loaded) -> States:
    """`PROMPTS` of one length, with their corrupted twins."""
    many = play_states(loaded, 6 * PROMPTS, 0, change="corrupted")
    lengths = (many.obs >= 0).sum(1)
    rows = torch.nonzero(lengths == lengths.mode().values)[:PROMPTS, 0]
    return many[rows]


def lens_weights(agent: Transformer) -> dict[str, Tensor]:
    """By TransformerLens's names."""
    blocks: Any = agent.blocks
    final: Any = agent.norm
    heads, out = agent.shape.heads, {"embed.W_E": agent.embed.words.weight, "unembed.W_U": agent.unembed.weight.T}
    assert agent.embed.positions is not None
    out |= {"pos_embed.W_pos": agent.embed.positions.weight, "unembed.b_U": torch.zeros(agent.shape.vocabulary)}
    out |= {"ln_final.w": final.weight, "ln_final.b": final.bias}
    for i, block in enumerate(blocks):
        attention, at = block.attention, f"blocks.{i}"
        for letter, layer in (("Q", attention.query), ("K", attention.key), ("V", attention.value)):
            out[f"{at}.attn.W_{letter}"] = layer.weight.unflatten(0, (heads, -1)).mT
            out[f"{at}.attn.b_{letter}"] = layer.bias.unflatten(0, (heads, -1))
        out[f"{at}.attn.W_O"] = attention.output.weight.T.unflatten(0, (heads, -1))
        out[f"{at}.attn.b_O"] = attention.output.bias
        out |= {f"{at}.mlp.W_in": block.mlp.up.weight.T, f"{at}.mlp.b_in": block.mlp.up.bias}
        out |= {f"{at}.mlp.W_out": block.mlp.down.weight.T, f"{at}.mlp.b_out": block.mlp.down.bias}
        for norm, name in ((block.norm1, "ln1"), (block.norm2, "ln2")):
            out |= {f"{at}.{name}.w": norm.weight, f"{at}.{name}.b": norm.bias}
    return {name: value.detach().contiguous() for name, value in out.items()}


def lens_shape(shape: Architecture) -> dict[str, object]:
    return {
        "n_layers": shape.layers, "d_model": shape.width, "n_ctx": shape.context, "d_head": shape.width // shape.heads,
        "n_heads": shape.heads, "d_mlp": shape.hidden, "d_vocab": shape.vocabulary, "act_fn": "gelu_new",
        "normalization_type": "LN", "eps": shape.norm_eps,
    }  # fmt: skip


def edge_names(graph: Graph) -> list[str]:
    """Of all edges, in the order of a mask's vector, as AutoCircuit calls them."""
    names, reads = [], {}
    for link in graph.links:
        number = reads[link.source, link.dest] = reads.get((link.source, link.dest), -1) + 1
        for row in range(link.shape[0]):
            for column in range(link.shape[1]):
                names.append(f"{_source(link.source, column)}->{_destination(link.dest, row, number)}")
    return names


def _source(node: str, unit: int) -> str:
    part = node.removeprefix("terms.")
    if part == "embed":
        return "Resid Start"
    block, kind = part.removeprefix("block").split(".")
    return f"A{block}.{unit}" if kind == "heads" else f"MLP {block}"


def _destination(node: str, unit: int, number: int) -> str:
    part = node.removeprefix("terms.")
    if part == "last":
        return "Resid End"
    block, kind = part.removeprefix("block").split(".")
    return f"A{block}.{unit}.{'QKV'[number]}" if kind == "heads" else f"MLP {block}"


def peer(agent: Transformer, states: States, answers: Tensor) -> dict | None:
    if not python_of("auto_circuit").exists():
        return None
    with tempfile.TemporaryDirectory() as folder:
        assert states.counterfactual is not None
        length = int((states.obs[0] >= 0).sum())
        texts = {"clean": states.obs[:, :length], "corrupt": states.counterfactual.obs[:, :length]}
        chosen = {"answers": answers[:, :1], "wrong": answers[:, 1:]}
        for name, given in (("prompts", texts | chosen), ("weights", lens_weights(agent))):
            arrays: dict[str, Any] = {each: tensor.numpy() for each, tensor in given.items()}
            np.savez(Path(folder) / f"{name}.npz", **arrays)
        (Path(folder) / "shape.json").write_text(json.dumps(lens_shape(agent.shape)))
        command = [python_of("auto_circuit"), "-m", "benchmarks.circuit_peers.auto_circuit", folder]
        command += [str(STEPS), str(THRESHOLD)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise RuntimeError(f"auto_circuit failed:\n{done.stderr[-2000:]}")
        return json.loads(done.stdout.splitlines()[-1])


def measure() -> Result:
    """Attributions of edges a second."""
    run = os.environ.get("RL_INTERP_TEXT_RUN")
    loaded = load_agent(run) if run else _trained()
    agent = loaded.agent
    assert isinstance(agent, Transformer)
    states = prompts_of(loaded)
    behaviour = Behaviour.of(agent, states, "counterfactual")
    answers = behaviour.preferences.topk(2).indices

    def difference(some: Behaviour, preferences: Tensor) -> Tensor:
        best, second = preferences.gather(-1, some.preferences.topk(2).indices).unbind(-1)
        return best - second

    def attributed(places: list[float]) -> Tensor:
        return sum(gradient(behaviour, Mask.full(behaviour.graph, place), difference) for place in places)  # pyright: ignore[reportReturnType]

    names, theirs = edge_names(behaviour.graph), peer(agent, states, answers)
    details: dict[str, object] = {"prompts": len(states), "edges": len(names)}
    seconds = {}
    for name, places in (("eap", [1.0]), ("eap-ig", [1 - i / STEPS for i in range(STEPS + 1)])):
        start = time.process_time()
        scores = attributed(places)
        seconds[name] = time.process_time() - start
        details[f"{name}, s"] = seconds[name]
        if theirs is not None:
            wanted = torch.tensor([theirs[name]["scores"][each] for each in names])
            off = (scores - wanted).abs().max() / wanted.abs().max()
            details |= {f"{name} of AutoCircuit, s": theirs[name]["seconds"], f"{name}, apart": off.item()}
    for name, one_by_one in (("acdc", False), ("acdc, edge by edge", True)):
        with counted() as count:
            start = time.process_time()
            found = acdc(behaviour, ACDCConfig(threshold=THRESHOLD / behaviour.require(), one_by_one=one_by_one))
            assert found.mask is not None
            details |= {f"{name}, s": time.process_time() - start, f"{name}, edges": found.mask.kept}
            details[f"{name}, prompts run"] = count.forward
    peers = {}
    if theirs is not None:
        own = behaviour.preferences
        details["logits, apart"] = (own - torch.tensor(theirs["logits"])).abs().max().item()
        kept = sum(score == float("inf") for score in theirs["acdc"]["scores"].values())
        details |= {"acdc of AutoCircuit, s": theirs["acdc"]["seconds"], "acdc of AutoCircuit, edges": kept}
        details["acdc of AutoCircuit, prompts run"] = theirs["acdc"]["runs"] * len(states)
        peers["AutoCircuit"] = len(names) * (STEPS + 1) / theirs["eap-ig"]["seconds"]
    details["network"] = asdict(agent.shape)
    return Result(
        "transformer_circuits", "attributions/s", len(names) * (STEPS + 1) / seconds["eap-ig"], peers, None, details
    )


def _trained() -> Loaded:
    folder = tempfile.mkdtemp()
    command = ["train", "transformer", "--task", "ioi", "--num-envs", "32", "--learning-rate", "3e-3"]
    command += ["--agent-steps", "700000", "--name", f"{folder}/names"]
    subprocess.run([ROOT / ".venv" / "bin" / "rl-interp", *command], check=True, capture_output=True)
    return load_agent(f"{folder}/names")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(measure, ("numpy",))
