"""Self-ablation of small transformers on stories, or on another task (Ferrao et al. 2025, arXiv 2505.00509): loss on
held-out texts, edges of circuits, dictionaries, and what masks tell of the next word, with and without it.

    python -m benchmarks.transformers.self_ablation train runs/stories      # some eight minutes of one core; resumes
    python -m benchmarks.transformers.self_ablation measure runs/stories
    python -m benchmarks.transformers.self_ablation report

    python -m benchmarks.transformers.self_ablation train runs/ioi --task ioi --cases 0-local 1-global --seeds 0 1 2
"""

import argparse
import sys
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.agents.transformer import Training, Transformer, TransformerConfig, default_config
from rl_interp.agents.transformer.training import Texts, next_word_loss
from rl_interp.analysis.circuits.states import play_states
from rl_interp.analysis.self_ablation import Followed, leak, smallest
from rl_interp.circuits.behaviour import Behaviour
from rl_interp.circuits.discovery.acdc import acdc
from rl_interp.circuits.discovery.attribution import attribute
from rl_interp.core.envs import TextConfig
from rl_interp.core.envs.text.config import NOTHING, PREFIX
from rl_interp.core.envs.text.game import TextGame
from rl_interp.core.files import write_json
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.read import read_json
from rl_interp.core.run import Run
from rl_interp.core.tables import markdown

OUT = Path(__file__).parents[2] / "docs" / "results" / "transformers"
SHAPE: dict[str, Any] = dict(layers=2, width=64, hidden=256, agent_steps=400_000, learning_rate=3e-3)
KS = (1, 2, 4, 8)
CASES = ("0-local", *(f"{k}-{scope}" for scope in ("local", "global") for k in KS))
"""k and scope; 0 for a model without self-ablation."""
FAITHFUL = 0.9


def config_of(task: str, case: str) -> TransformerConfig:
    """A small model of a task's texts."""
    k, scope = case.split("-")
    return default_config(PREFIX + task, **SHAPE, self_ablation=int(k), ablation_scope=scope)


def train(folder: Path, task: str, cases: Sequence[str], seeds: Sequence[int]) -> None:
    """Train all that are not there yet."""
    for case, seed in product(cases, seeds):
        path = folder / f"{case}-{seed}"
        if path.exists():
            continue
        config, start = config_of(task, case), time.process_time()
        training = Training(config, seed, "cpu")
        while training.agent_steps < config.agent_steps:
            training.advance()
        run = Run.create(path, "transformer", config, seed)
        run.save_checkpoint(training.agent_steps, training.agent.state_dict(), training.state())
        print(path.name, training.metrics(), f"{time.process_time() - start:.0f} s", flush=True)


def measure(folder: Path, task: str) -> None:
    """Write the figures of all that are trained, run by run."""
    found = read_json(_results(task)) if _results(task).exists() else {}
    for path in sorted(folder.iterdir()):
        if path.name not in found:
            start = time.process_time()
            found[path.name] = _measured(load_agent(path))
            write_json(_results(task), found)
            print(path.name, found[path.name]["loss"], f"{time.process_time() - start:.0f} s", flush=True)


def _results(task: str) -> Path:
    return OUT / f"self-ablation{'' if task == 'stories' else f'-{task}'}.json"


def _measured(loaded: Loaded) -> dict[str, Any]:
    agent = loaded.agent
    assert isinstance(agent, Transformer)
    assert isinstance(loaded.env, TextConfig)
    config = loaded.run.config
    texts = Texts(loaded.env.scored, agent.shape.context).draw(400, np.random.default_rng(9))
    seen, losses = _follow(agent, texts)
    return {
        **losses, "k": config["self_ablation"], "scope": config["ablation_scope"], "right": _right(loaded),
        "active": {name: float((abs(units) > 0.05).mean()) for name, units in seen.units.items()},
        "circuits": _circuits(loaded), "dictionary": _dictionary(seen.units["fc"]),
        "leak": {name: each for name, each in leak(seen).items() if "mlp" not in name},
    }  # fmt: skip


@torch.no_grad()
def _right(loaded: Loaded) -> float:
    """The share of 500 held-out prompts of which it says a right next word."""
    assert isinstance(loaded.env, TextConfig)
    game, agent = TextGame(loaded.env.scored), loaded.agent
    shown, right = np.full((500, *loaded.env.observation_shape), NOTHING), []
    for seed in range(500):
        game.reset(1_000_000 + seed)
        game.observe(shown[seed])
        right.append([game.reader.number(word) for word in game.prompt.right])
    said = agent.step(torch.from_numpy(shown)).preferences.argmax(-1).tolist()
    return float(np.mean([word in words for word, words in zip(said, right, strict=True)]))


@torch.no_grad()
def _follow(agent: Transformer, texts: Tensor) -> tuple[Followed, dict[str, float]]:
    """Held-out stories, read by a model and by its ablated stream; what is decided is the next word."""
    given, known = texts[:, :-1], (texts[:, 1:] != NOTHING).numpy()
    points = [f"block{n}.{part}" for n in range(agent.shape.layers) for part in ("z", "mlp.post")]
    _, cache = run_with_cache(agent, given, names=points)
    clean = agent.read_out(agent.stream(given))
    losses, masks = {"loss": float(next_word_loss(clean, texts))}, {}
    if agent.self_ablation is not None:
        streams = agent.both_streams(given)
        losses["ablated_loss"] = float(next_word_loss(agent.read_out(streams.ablated), texts))
        losses["distance"] = float(streams.distance)
        masks = {name: mask.numpy()[known] > 0 for name, mask in streams.masks.items()}
    units = {name: value.transpose(1, 2).flatten(2) if name.endswith("z") else value for name, value in cache.items()}
    units = {name: value.numpy()[known] for name, value in units.items()}
    episodes = np.broadcast_to(np.arange(len(texts))[:, None], known.shape)[known]
    rows = np.random.default_rng(0).permutation(len(episodes))[:6000]
    actions = clean.argmax(-1).numpy()[known]
    renamed = {points[-1]: "fc"}  # `leak` looks at one layer of that name alone
    units = {renamed.get(name, name): each[rows] for name, each in units.items()}
    masks = {renamed.get(name, name): each[rows] for name, each in masks.items()}
    return Followed(episodes[rows], actions[rows], units, masks, {}, {}), losses


def _circuits(loaded: Loaded) -> dict[str, Any]:
    """Edges of the smallest circuit of the next word that is faithful enough, with means put in place."""
    played = play_states(loaded, 96, 0)
    here, others = (Behaviour.of(loaded.agent, each, bank=played[:48]) for each in (played[:48], played[48:]))
    scored = attribute(here, 3)
    alone = acdc(here[:24])
    return {
        "eap-ig": smallest(others, scored, FAITHFUL), "acdc": alone.circuit().kept,
        "acdc_faithfulness": others.faithfulness(alone.circuit()), "candidates": here.graph.edges,
        "kl_without_any": others.require(), "forwards": scored.cost.forwards + alone.cost.forwards,
    }  # fmt: skip


def _dictionary(units: np.ndarray) -> dict[str, float]:
    """A dictionary of 256 latents with a penalty on their sum (Cunningham et al. 2023), on neurons that are scaled to a
    mean square of 1: the latents that are active in a sample, and the variance that it leaves unexplained."""
    torch.manual_seed(0)
    x = torch.from_numpy(units)
    x = (x - x.mean(0)) / (x - x.mean(0)).square().sum(1).mean().sqrt()
    train, held_out = x[:5000], x[5000:]
    encode, decode = torch.nn.Linear(x.shape[1], 256), torch.nn.Linear(256, x.shape[1])
    optimizer = torch.optim.Adam([*encode.parameters(), *decode.parameters()], 2e-3)
    for _ in range(600):
        some = train[torch.randint(len(train), (256,))]
        latents = encode(some).relu()
        weights = decode.weight.norm(dim=0)
        loss = (decode(latents) - some).square().sum(1).mean() + 0.05 * (latents * weights).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        latents = encode(held_out).relu()
        left = (decode(latents) - held_out).square().sum(1).mean() / held_out.square().sum(1).mean()
    return {"l0": float((latents > 1e-3).float().sum(1).mean()), "fvu": float(left)}


def report(task: str) -> None:
    """Print the table: means over seeds, lowest and highest."""
    found, groups = read_json(_results(task)), {}
    for each in found.values():
        groups.setdefault((each["k"], each["scope"] if each["k"] else "none"), []).append(each)
    rows = []
    for (k, scope), runs in sorted(groups.items(), key=lambda item: (item[0][1] != "none", item[0][1], item[0][0])):
        of = {
            "loss": [r["loss"] for r in runs], "ablated": [r.get("ablated_loss") for r in runs],
            "right": [r.get("right") for r in runs],
            "perplexity": [float(np.exp(r["loss"])) for r in runs],
            "EAP-IG": [r["circuits"]["eap-ig"] for r in runs], "ACDC": [r["circuits"]["acdc"] for r in runs],
            "L0": [r["dictionary"]["l0"] for r in runs], "FVU": [r["dictionary"]["fvu"] for r in runs],
            "masks": [_told(r, "masks, all") for r in runs],
            "units": [_told(r, "units at their medians, all") for r in runs],
            "most": [r["leak"]["most frequent action"]["value"] for r in runs],
        }  # fmt: skip
        rows.append([scope, k or "", len(runs), *(_shown(values) for values in of.values())])
    print(markdown(["scope", "k", "seeds", *of], rows))


def _told(result: dict[str, Any], by: str) -> float | None:
    return result["leak"].get(f"linear: {by}", {}).get("value")


def _shown(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    form = ".0f" if all(isinstance(value, int) for value in known) else ".3f"
    spread = f" [{min(known):{form}}, {max(known):{form}}]" if len(known) > 1 else ""
    return f"{np.mean(known):{form}}{spread}"


def main(arguments: list[str]) -> None:
    """Train, measure, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "measure", "report"])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs/stories"))
    parser.add_argument("--task", default="stories")
    parser.add_argument("--cases", nargs="+", default=CASES, help="k and scope, such as 4-local; 0-local is without")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    asked = parser.parse_args(arguments)
    if asked.what == "train":
        train(asked.folder, asked.task, asked.cases, asked.seeds)
    elif asked.what == "measure":
        measure(asked.folder, asked.task)
    else:
        report(asked.task)


if __name__ == "__main__":
    main(sys.argv[1:])
