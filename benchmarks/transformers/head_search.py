"""Which single head a task needs most: a policy that learned it of induction and indirect objects, tried on docstrings,
beside the best head, chance, any number of tries, attribution, and the best head of the other tasks.

    python -m benchmarks.transformers.head_search tabulate runs/mixed      # every head cut alone, by task
    python -m benchmarks.transformers.head_search search mixed             # five policies, on the table alone
    python -m benchmarks.transformers.head_search show smollm2             # which heads a task needs, with intervals

The first version of arXiv 2605.26343; its reward is the damage to the task less that to control text. Damages are falls
of the log-probability of a right word, in nats, with a head at zero. A language model is asked as it reads: symbols are
common words, said a third time, and docstrings are laid out as Python is.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor

from rl_interp.agents.load import Loaded, load_agent
from rl_interp.agents.transformer import Transformer
from rl_interp.analysis.circuits.heads import without_each_head
from rl_interp.circuits.discovery.rl.heads import HeadTask, learn
from rl_interp.circuits.discovery.rl.training import RLConfig
from rl_interp.core.envs import TextConfig, env_config
from rl_interp.core.envs.text.config import NOTHING, PREFIX
from rl_interp.core.envs.text.game import Reader
from rl_interp.core.envs.text.tokens import tokenizer_of
from rl_interp.core.envs.text.words import DESCRIPTIONS
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
SEEDS, AT_ONCE = 5, 8
LEAST = 0.5
"""Share of the prompts in which a right word must be the likeliest, or the model lacks the task."""
CONFIG = RLConfig(updates=60, episodes=16, entropy=0.02)


def tabulate(run: str, tasks: Sequence[str], prompts: int, control: str) -> None:
    """Write `heads-RUN.json`: by task, damages and features of all heads. Eight prompts at a time, each written when it
    is done, so that a table can be ended early and gone on with."""
    loaded, start = load_agent(run), time.process_time()
    agent, path = loaded.agent, OUT / f"heads-{loaded.run.path.name}.json"
    assert isinstance(agent, Transformer)
    source = loaded.source | {"run": loaded.run.path.name}
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    if (found.get("source"), found.get("control")) != (source, control):
        found = {"source": source, "control": control, "seconds": 0.0, "tasks": {}}
    for task in tasks or (*TASKS, control):
        asked, done = prompts_of(loaded, task, prompts), found["tasks"].get(task, {"prompts": 0})
        while done["prompts"] < prompts:
            some = tuple(each[done["prompts"] :][:AT_ONCE] for each in asked)
            done = found["tasks"][task] = _more(agent, done, some, task, asked)
            found["seconds"], start = found["seconds"] + time.process_time() - start, time.process_time()
            write_json(path, found)
            print(task, {each: done[each] for each in ("prompts", "own", "likeliest")}, flush=True)


def _more(
    agent: Transformer, done: dict[str, Any], some: tuple[Tensor, ...], task: str, all_of_them: tuple[Tensor, ...]
) -> dict[str, Any]:  # fmt: skip
    """A task's table, with that of some more prompts: means over prompts, and their standard errors; features are of
    all of them."""
    obs, right, wrong = some
    before, count = done["prompts"], done["prompts"] + len(obs)

    def score(logits: Tensor, right: Tensor) -> Tensor:
        return logits.log_softmax(-1).masked_fill(~right, -torch.inf).logsumexp(-1)

    def both(logits: Tensor) -> Tensor:
        """`[N, 2]`: also the logits of the words that are right, less those of the words that are wrong."""
        return torch.stack([score(logits, right), (logits * right).sum(-1) - (logits * wrong).sum(-1)], -1)

    with torch.no_grad():
        logits = agent.step(obs).logits
        assert logits is not None
        own = both(logits)
    falls = (own - without_each_head(agent, obs, both)).double()  # [L, H, N, 2]
    sums, squares = falls.sum(2), falls.square().sum(2)
    if before:
        mean, error = (torch.tensor(done[of], dtype=torch.float64) for of in ("falls", "errors"))
        sums = sums + before * mean
        squares = squares + before * (before - 1) * error.square() + before * mean.square()
    mean = sums / count
    error = ((squares - count * mean.square()).clamp(min=0) / (count - 1) / count).sqrt()
    likeliest = right.gather(1, logits.argmax(-1, keepdim=True)).double()
    shares = {"own": own.mean(0)[0], "difference": own.mean(0)[1], "likeliest": likeliest.mean()}
    return {
        "prompts": count,
        **{name: (before * done.get(name, 0.0) + len(obs) * float(each)) / count for name, each in shares.items()},
        "measures": ["log-probability of a right word", "its logit less that of the subject, in ioi"],
        "falls": mean.tolist(), "errors": error.tolist(),
        "features": done.get("features")
        or _features(agent, all_of_them[0], all_of_them[1], lambda logits: score(logits, all_of_them[1])).tolist(),
    }  # fmt: skip


def prompts_of(loaded: Loaded, task: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """int64 `[N, S]`, and bool `[N, V]`, words that are right, and that are wrong; of stories, beginnings that are as
    long as prompts."""
    assert isinstance(loaded.env, TextConfig)
    grammar = env_config(PREFIX + task)
    assert isinstance(grammar, TextConfig)
    reader, rng = Reader(loaded.env), np.random.default_rng(0)
    rows, right, wrong = [], [], []
    while len(rows) < count:
        prompt = grammar.grammar.prompt(rng, "held-out")
        words = prompt.words[: int(rng.integers(8, 18))] if task == "stories" else prompt.words
        follows = prompt.words[len(words) : len(words) + 1] or prompt.right
        try:
            numbers = [reader.number(word) for word in follows]
            others = [reader.number(word) for word in prompt.wrong] if task == "ioi" else []
        except UserError:  # a word of several tokens
            continue
        rows.append(_read(reader, task, words, rng))
        right.append(numbers)
        wrong.append(others)
    obs = torch.full((count, max(map(len, rows))), NOTHING)
    marked = torch.zeros(2, count, len(reader.words), dtype=torch.bool)
    for i, (row, numbers, others) in enumerate(zip(rows, right, wrong, strict=True)):
        obs[i, : len(row)] = torch.tensor(row)
        marked[0, i, numbers] = True
        marked[1, i, others] = True
    return obs, marked[0], marked[1]


def _read(reader: Reader, task: str, words: Sequence[str], rng: np.random.Generator) -> list[int]:
    """The numbers of a prompt, in the form in which the model does the task."""
    path = reader.config.tokenizer
    if path and task == "docstring":
        names = words[6 : words.index(")") : 2]
        said = rng.choice(DESCRIPTIONS, 4)
        lines = "".join(f"    :param {name}: {what}\n" for name, what in zip(names, said, strict=False))
        text = f'def {words[2]}(self, {", ".join(names)}):\n    """\n{lines}    :param'
        return tokenizer_of(path).encode(text, add_special_tokens=False).ids
    if path and task == "induction":
        return reader.numbers([words[0], *dict.fromkeys(words[1:]), *words[1:]])
    return reader.numbers(words)


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
    if not (share := found["tasks"][task]["likeliest"]) >= LEAST:
        raise UserError(
            f"the model says a right word in {share:.0%} of the prompts of {task}, so it has "
            "no such behaviour to look for; choose another task or another model."
        )
    damage, control = (
        torch.tensor(found["tasks"][each]["falls"])[..., 0].double() for each in (task, found["control"])
    )
    features = torch.tensor(found["tasks"][task]["features"])
    return HeadTask(task, features, (damage - control.clamp(min=0)).flatten())


def show(name: str) -> None:
    """Print, by task, the heads without which it suffers most, and least, with 95% intervals over prompts."""
    for task, each in read_json(OUT / f"heads-{name}.json")["tasks"].items():
        print(f"{task}: {each['prompts']} prompts, likeliest is right {each['likeliest']:.3f}")
        for at, measure in enumerate(each["measures"][: 2 if task == "ioi" else 1]):
            fall, error = (torch.tensor(each[of])[..., at] for of in ("falls", "errors"))
            order = fall.flatten().argsort(descending=True).tolist()
            heads = fall.shape[1]
            width = float(t.ppf(0.975, each["prompts"] - 1)) * error
            told = [f"{i // heads}.{i % heads} {fall.flatten()[i]:.2f} ± {width.flatten()[i]:.2f}"
                    for i in (*order[:8], *order[-3:])]  # fmt: skip
            clear = int((fall.abs() > width).sum())
            print(f"  {measure}: {clear} of {fall.numel()} heads differ from 0;", ", ".join(told))


def main(arguments: Sequence[str]) -> None:
    """Tabulate, search, or show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["tabulate", "search", "show"])
    parser.add_argument("run")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--control", default="greater-than")
    parser.add_argument("--tasks", nargs="*", default=[], help="those to tabulate; all by default")
    asked = parser.parse_args(arguments)
    if asked.what == "tabulate":
        tabulate(asked.run, asked.tasks, asked.prompts, asked.control)
    else:
        {"search": search, "show": show}[asked.what](asked.run)


if __name__ == "__main__":
    main(sys.argv[1:])
