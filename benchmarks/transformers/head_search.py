"""Which single head a task needs most: a policy that learned it of induction and indirect objects, tried on docstrings,
beside the best head, chance, any number of tries, attribution, and the best head of the other tasks.

    python -m benchmarks.transformers.head_search tabulate runs/mixed      # every head cut alone, by task
    python -m benchmarks.transformers.head_search search mixed             # five policies, on the table alone

The first version of arXiv 2605.26343; its reward is the damage to the task less that to control text. Damages are falls
of the log-probability of a right word, in nats, with a head at zero.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.agents.transformer import Transformer
from rl_interp.analysis.circuits.heads import without_each_head
from rl_interp.circuits.discovery.rl.heads import HeadTask, learn
from rl_interp.circuits.discovery.rl.training import RLConfig
from rl_interp.core.envs import TextConfig, env_config
from rl_interp.core.envs.text.config import NOTHING, PREFIX
from rl_interp.core.envs.text.game import Reader
from rl_interp.core.errors import UserError
from rl_interp.core.files import write_json
from rl_interp.core.hooks import Hook, run_with_hooks
from rl_interp.core.read import read_json
from rl_interp.core.tables import markdown

OUT = Path(__file__).parents[2] / "docs" / "results" / "transformers"
SEEN, HELD_OUT = ("induction", "ioi"), "docstring"
TASKS = (*SEEN, HELD_OUT)
FEATURES = (
    "depth", "attribution", "attribution's rank", "to the first word", "to the word before", "to the same word",
    "to what followed the same word", "to a right word, from the last",
)  # fmt: skip
SEEDS = 5
CONFIG = RLConfig(updates=60, episodes=16, entropy=0.02)


def tabulate(run: str, prompts: int, control: str) -> None:
    """Write `heads-RUN.json`: by task, damages and features of all heads."""
    loaded, start = load_agent(run), time.process_time()
    agent = loaded.agent
    assert isinstance(agent, Transformer)
    found: dict[str, Any] = {
        "source": loaded.source | {"run": loaded.run.path.name},
        "prompts": prompts,
        "control": control,
        "tasks": {},
    }
    for task in (*TASKS, control):
        obs, right = _prompts(loaded, task, prompts)

        def score(logits: Tensor, right: Tensor = right) -> Tensor:
            return logits.log_softmax(-1).masked_fill(~right, -torch.inf).logsumexp(-1)

        with torch.no_grad():
            own = score(agent.step(obs).logits)  # pyright: ignore[reportArgumentType]
        damages = (own - without_each_head(agent, obs, score)).mean(-1)
        found["tasks"][task] = {
            "own": float(own.mean()), "right": float((own.exp() > 0.5).double().mean()), "damages": damages.tolist(),
            "features": _features(agent, obs, right, score).tolist() if task != control else None,
        }  # fmt: skip
        found["seconds"] = time.process_time() - start
        write_json(OUT / f"heads-{loaded.run.path.name}.json", found)
        print(task, found["tasks"][task]["own"], f"{found['seconds']:.0f} s", flush=True)


def _prompts(loaded: Loaded, task: str, count: int) -> tuple[Tensor, Tensor]:
    """int64 `[N, S]`, and bool `[N, V]`, words that are right; of stories, beginnings that are as long as prompts."""
    assert isinstance(loaded.env, TextConfig)
    grammar = env_config(PREFIX + task)
    assert isinstance(grammar, TextConfig)
    reader, rng = Reader(loaded.env), np.random.default_rng(0)
    rows, right = [], []
    while len(rows) < count:
        prompt = grammar.grammar.prompt(rng, "held-out")
        words = prompt.words[: int(rng.integers(8, 18))] if task == "stories" else prompt.words
        follows = prompt.words[len(words) : len(words) + 1] or prompt.right
        try:
            numbers = [reader.number(word) for word in follows]
        except UserError:  # a word of several tokens
            continue
        rows.append(reader.numbers(words))
        right.append(numbers)
    obs = torch.full((count, max(map(len, rows))), NOTHING)
    marked = torch.zeros(count, len(reader.words), dtype=torch.bool)
    for i, (row, numbers) in enumerate(zip(rows, right, strict=True)):
        obs[i, : len(row)] = torch.tensor(row)
        marked[i, numbers] = True
    return obs, marked


def _features(agent: Transformer, obs: Tensor, right: Tensor, score: Any) -> Tensor:
    """float32 `[L * H, F]`: see `FEATURES`; attribution is the gradient of the score by each head's scale."""
    layers, heads = agent.shape.layers, agent.shape.heads
    scale = torch.ones(layers, heads, requires_grad=True)
    patterns: dict[int, Tensor] = {}

    def scaled(block: int) -> Hook:
        return lambda z, site: z * scale[block][:, None, None]

    def kept(block: int) -> Hook:
        return lambda pattern, site: patterns.__setitem__(block, pattern.detach())

    hooks = {f"block{n}.z": scaled(n) for n in range(layers)} | {f"block{n}.pattern": kept(n) for n in range(layers)}
    (slope,) = torch.autograd.grad(score(run_with_hooks(agent, obs, hooks=hooks).logits).mean(), scale)
    ends = (obs >= 0).sum(1) - 1
    here = (obs >= 0)[:, :, None] & (obs >= 0)[:, None, :]
    same = (obs[:, :, None] == obs[:, None, :]) & here & torch.ones(obs.shape[1], obs.shape[1]).tril(-1).bool()
    followed = torch.zeros_like(same)
    followed[:, :, 1:] = same[:, :, :-1]
    answer = right.gather(1, obs.clamp(min=0)) & (obs >= 0)
    rows = []
    for block in range(layers):
        pattern, batch = patterns[block], torch.arange(len(obs))
        before = pattern.diagonal(-1, 2, 3)
        columns = (
            pattern[..., 0][:, :, 1:].mean((0, 2)), before.mean((0, 2)),
            *((pattern * each[:, None]).sum(-1).mean((0, 2)) for each in (same, followed)),
            (pattern[batch, :, ends] * answer[:, None]).sum(-1).mean(0),
        )  # fmt: skip
        rows.append(torch.stack([torch.full((heads,), block / max(1, layers - 1)), *columns], 1))
    shown, flat = torch.cat(rows), slope.flatten()
    ranks = flat.argsort().argsort() / max(1, len(flat) - 1)
    return torch.cat([shown[:, :1], (flat / flat.abs().max())[:, None], ranks[:, None], shown[:, 1:]], 1)


def search(name: str) -> None:
    """Print what each way of choosing comes to, as a share of the best head's reward; write `head-search-NAME.json`."""
    found = read_json(OUT / f"heads-{name}.json")
    tasks = {task: _task(found, task) for task in TASKS}
    held_out, seen = tasks[HELD_OUT], [tasks[task] for task in SEEN]
    learned = [learn(seen, CONFIG, seed) for seed in range(SEEDS)]
    alone = [learn([held_out], CONFIG, seed) for seed in range(SEEDS)]
    shares = {
        "policy of the other tasks, its first choice": [held_out.share(each.choice(held_out)) for each in learned],
        "the same, on the tasks that it learned from": [np.mean([t.share(each.choice(t)) for t in seen])
                                                        for each in learned],
        "policy trained on it": [held_out.share(each.choice(held_out)) for each in alone],
    }  # fmt: skip
    single = {
        "greatest attribution": held_out.share(int(held_out.features[:, 1].argmax())),
        "best head of the other tasks": held_out.share(int(sum(t.rewards / t.oracle for t in seen).argmax())),  # pyright: ignore[reportAttributeAccessIssue]
        **{f"best of {tries} at random": held_out.share_of_tries(tries) for tries in (1, 4, 8)},
        "oracle": 1.0,
    }
    rows = [[way, f"{np.mean(each):.2f}", f"{np.max(each):.2f}", " ".join(f"{x:.2f}" for x in each)]
            for way, each in shares.items()]  # fmt: skip
    rows += [[way, f"{share:.2f}", "", ""] for way, share in single.items()]
    print(markdown(["choice of a head for docstrings", "share of the oracle's reward", "best", "seeds"], rows))
    cut = {"of the other tasks": [each.cut for each in learned], "trained on it": [each.cut for each in alone]}
    best = {task: int(each.rewards.argmax()) for task, each in tasks.items()}
    oracles = {task: each.oracle for task, each in tasks.items()}
    result = {"shares": shares, "single": single, "cut": cut, "best": best, "oracle": oracles}
    write_json(OUT / f"head-search-{name}.json", result)
    print(result["oracle"], best, cut)


def _task(found: dict[str, Any], task: str) -> HeadTask:
    """Its reward is the damage to it less that to control text, and less nothing where that gains."""
    damage, control = (torch.tensor(found["tasks"][each]["damages"]).double() for each in (task, found["control"]))
    features = torch.tensor(found["tasks"][task]["features"])
    return HeadTask(task, features, (damage - control.clamp(min=0)).flatten())


def main(arguments: Sequence[str]) -> None:
    """Tabulate, or search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["tabulate", "search"])
    parser.add_argument("run")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--control", default="greater-than")
    asked = parser.parse_args(arguments)
    tabulate(asked.run, asked.prompts, asked.control) if asked.what == "tabulate" else search(asked.run)


if __name__ == "__main__":
    main(sys.argv[1:])
