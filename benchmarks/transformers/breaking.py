"""One habit of a language model ended by few of its edges: that it names the indirect object.

    python -m benchmarks.transformers.breaking runs/smollm2      # some ten minutes of one core; goes on where it ended

After "Circuit Breaking" (Li, Davies & Nadeau 2023, arXiv 2309.05973): a mask is learned on 30 prompts that show the
habit and on texts that are to stay as they are. A model of 123,211 edges leaves no time to try all in each step, so the
mask is learned on those whose cutting, to first order, raises the loss of the habit most. Cut edges carry the mean of
what their source adds. Beside it: as many random edges, whole units, and all weights trained by the same loss.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.transformers.head_search import prompts_of
from rl_interp.agents.load import Loaded, load_agent
from rl_interp.agents.transformer import Transformer
from rl_interp.agents.transformer.training import next_word_loss
from rl_interp.analysis.circuits.edges import Edges
from rl_interp.core.envs import TextConfig, env_config
from rl_interp.core.envs.text.config import NOTHING, PREFIX
from rl_interp.core.envs.text.game import Reader
from rl_interp.core.files import write_json
from rl_interp.core.read import read_json
from rl_interp.core.stats import bootstrap, mean, wilson

OUT = Path(__file__).parents[2] / "docs" / "results" / "transformers" / "breaking-smollm2.json"
BAD, HELD_OUT = 30, 32
"""Prompts that show the habit: to learn from, and to judge on."""
CANDIDATES = 200
"""Edges that the mask is learned on."""
STEPS, BAD_BATCH, GOOD_BATCH = 24, 5, 3
LEARNING_RATE, BAD_WEIGHT, ENOUGH = 0.2, 0.2, 6.0
"""Of the mask; of the habit's loss beside that of other text; and nats of it beyond which nothing more is gained."""
PRICE, PRICED_FROM = 0.02, 4
"""Of a cut edge in the end, in nats, and the step from which the price rises."""
KINDS = ("stories", "docstring", "induction")
"""Of text that is to be spared; docstrings are never learned from."""
SPARED = ("stories", "induction")
AT_ONCE = 6


@dataclass(frozen=True)
class Prompts:
    """Prompts that show the habit: int64 `[N, S]`, and what is said then, int64 `[N]`."""

    obs: Tensor
    right: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "Prompts":
        return Prompts(self.obs[rows], self.right[rows])

    def loss(self, stream: Tensor, agent: Transformer) -> Tensor:
        """`[N]`: −log P of the indirect object, in nats, from the stream `[N, S, D]` after the last block."""
        return F.cross_entropy(agent.decide(stream, agent.ends(self.obs)), self.right, reduction="none")


def measure(run: str) -> None:
    """Write `breaking-smollm2.json`, condition by condition; those that are there already are left as they are."""
    loaded, start = load_agent(run), time.process_time()
    agent, source = loaded.agent, loaded.source | {"run": loaded.run.path.name}
    assert isinstance(agent, Transformer)
    agent.requires_grad_(False)
    bad, held_out = _habit(loaded)
    good = torch.cat([_padded(_texts(loaded, kind, 16, 1, 24), 24) for kind in SPARED])
    others = {kind: _texts(loaded, kind, 10, 0, 46) for kind in KINDS}
    edges = Edges.of(agent, torch.cat([good, _padded(bad.obs, 24)]))
    result: dict[str, Any] = read_json(OUT) if OUT.exists() else {}
    if result.get("source") != source:
        result = {"source": source, "edges": len(edges)}
    if "search" not in result:
        slopes = _slopes(edges, bad)
        candidates = slopes.argsort(descending=True)[:CANDIDATES]
        cut, told = _learned(edges, candidates, bad, good)
        rise = torch.zeros(len(edges.sources)).index_add(0, edges.source_of, slopes)
        result["search"] = told | {
            "cut": cut.tolist(), "candidates": candidates.tolist(), "rise by source": rise.tolist(),
            "cut edges": [edges.name(int(edge)) for edge in cut], "seconds": time.process_time() - start,
        }  # fmt: skip
        write_json(OUT, result)
    found = result["search"]
    cut, candidates = torch.tensor(found["cut"]), torch.tensor(found["candidates"])
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randperm(len(edges), generator=generator)[: len(cut)] for _ in range(3)]
    near = [candidates[torch.randperm(len(candidates), generator=generator)[: len(cut)]] for _ in range(2)]

    def masked(cut: Tensor) -> dict[str, Any]:
        return _scored(lambda obs: edges.stream(obs, cut), agent, held_out, others)

    def units() -> dict[str, Any]:
        chosen = _units(edges, torch.tensor(found["rise by source"]), bad, found["bad, in the end"])
        out_of = _out_of(edges, chosen)
        return masked(out_of) | {"cut": [edges.sources[unit] for unit in chosen], "edges cut": len(out_of)}

    def tuned() -> dict[str, Any]:
        other, steps = _tuned(agent, bad, good, found["bad, in the end"])
        return _scored(other.stream, other, held_out, others) | {"steps": steps}

    conditions: dict[str, Callable[[], dict[str, Any]]] = {
        "before": lambda: _scored(agent.stream, agent, held_out, others),
        "after": lambda: masked(cut),
        "random 0": lambda: masked(draws[0]),
        "units": units,
        "fine-tuned": tuned,
        "first by attribution": lambda: masked(candidates[: len(cut)]),
        "random candidates 0": lambda: masked(near[0]),
        "random 1": lambda: masked(draws[1]),
        "random candidates 1": lambda: masked(near[1]),
        "random 2": lambda: masked(draws[2]),
    }
    for name, make in conditions.items():
        if name in result:
            continue
        scored = make()
        own = result.get("before", scored)["losses"]
        result[name] = scored | {"rise of the loss": {
            kind: bootstrap([np.subtract(scored["losses"][kind], own[kind])], mean).shown(".3f") for kind in KINDS
        }}  # fmt: skip
        write_json(OUT, result)
        print(name, {each: value for each, value in result[name].items() if each != "losses"}, flush=True)
        print(f"{time.process_time() - start:.0f} s", flush=True)


def _habit(loaded: Loaded) -> tuple[Prompts, Prompts]:
    obs, right, _ = prompts_of(loaded, "ioi", BAD + HELD_OUT)
    prompts = Prompts(obs, right.float().argmax(-1))
    return prompts[:BAD], prompts[BAD:]


def _texts(loaded: Loaded, kind: str, count: int, seed: int, most: int) -> Tensor:
    """int64 `[N, S]`: stories, and prompts of other tasks, from their beginning."""
    if kind != "stories":
        return prompts_of(loaded, kind, 2 * count)[0][seed * count :][:count, :most]
    assert isinstance(loaded.env, TextConfig)
    grammar, reader = env_config(PREFIX + kind), Reader(loaded.env)
    assert isinstance(grammar, TextConfig)
    rng = np.random.default_rng(seed)
    rows = [torch.tensor(reader.numbers(grammar.grammar.text(rng, "held-out"))[:most]) for _ in range(count)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=NOTHING)


def _padded(texts: Tensor, length: int) -> Tensor:
    return F.pad(texts, (0, length - texts.shape[1]), value=NOTHING) if texts.shape[1] < length else texts[:, :length]


def _slopes(edges: Edges, bad: Prompts) -> Tensor:
    """`[E]`: by how much the loss of the habit rises where an edge is cut, to first order."""
    parts = [bad[i : i + AT_ONCE] for i in range(0, len(bad.obs), AT_ONCE)]
    found = [edges.slopes(some.obs, lambda stream, some=some: some.loss(stream, edges.agent).sum()) for some in parts]
    return torch.stack(found).sum(0) / len(bad.obs)


def _learned(edges: Edges, candidates: Tensor, bad: Prompts, good: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """The edges to cut, int64 `[C]`, and how they were found."""
    agent, generator = edges.agent, torch.Generator().manual_seed(0)
    own = torch.cat([agent.read_out(agent.stream(some)).log_softmax(-1) for some in good.split(8)])
    values = torch.ones(len(candidates), requires_grad=True)
    optimizer = torch.optim.AdamW([values], LEARNING_RATE, weight_decay=0.0)
    told: dict[str, Any] = {"bad": [], "good": [], "cut by step": []}
    for step in range(STEPS):
        rows = torch.randperm(len(bad.obs), generator=generator)[:BAD_BATCH]
        some = torch.randperm(len(good), generator=generator)[:GOOD_BATCH]
        stream = edges.stream(bad[rows].obs, candidates, values)
        of_bad = bad[rows].loss(stream, agent).clamp(max=ENOUGH).mean()
        read = good[some] >= 0
        said = agent.read_out(edges.stream(good[some], candidates, values)).log_softmax(-1)
        of_good = (own[some].exp() * (own[some] - said)).sum(-1)[read].mean()
        price = PRICE * max(0, step - PRICED_FROM) / (STEPS - PRICED_FROM)
        loss = of_good - BAD_WEIGHT * of_bad + price * (1 - values).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            values.clamp_(0, 1)
            if step + 1 in (STEPS // 2, 3 * STEPS // 4, STEPS):
                values.copy_((values >= 0.5).to(values))
        for name, value in (("bad", of_bad), ("good", of_good), ("cut by step", (values < 0.5).sum())):
            told[name].append(round(float(value.detach()), 4))
        print(step, told["bad"][-1], told["good"][-1], told["cut by step"][-1], flush=True)
    cut = candidates[values.detach() < 0.5]
    ended = _loss_without(edges, cut, bad)
    passes = STEPS * (BAD_BATCH + GOOD_BATCH)
    return cut, told | {"bad, in the end": ended, "passes": passes + len(bad.obs)}


@torch.no_grad()
def _loss_without(edges: Edges, cut: Tensor, bad: Prompts) -> float:
    parts = [bad[i : i + AT_ONCE] for i in range(0, len(bad.obs), AT_ONCE)]
    return float(torch.cat([some.loss(edges.stream(some.obs, cut), edges.agent) for some in parts]).mean())


def _out_of(edges: Edges, units: Sequence[int]) -> Tensor:
    return torch.isin(edges.source_of, torch.tensor(units)).nonzero()[:, 0]


@torch.no_grad()
def _units(edges: Edges, rise: Tensor, bad: Prompts, at_least: float) -> list[int]:
    """Whole heads and MLPs, by the first-order `rise [W]` of the habit's loss, until it is `at_least` so many nats on
    ten of the prompts; twelve at most."""
    rise[0] = -torch.inf  # the embedding is all that there is to read
    order = rise.argsort(descending=True).tolist()
    for count in (1, 2, 3, 4, 6, 8, 10, 12):
        if _loss_without(edges, _out_of(edges, order[:count]), bad[:10]) >= at_least:
            break
    return order[:count]


def _tuned(agent: Transformer, bad: Prompts, good: Tensor, at_least: float) -> tuple[Transformer, int]:
    """A copy with all weights trained by the same loss, until the habit's is `at_least` so many nats in a batch."""
    tuned, generator = copy.deepcopy(agent).requires_grad_(True), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(tuned.parameters(), 3e-5)
    for step in range(STEPS // 2):
        rows = torch.randperm(len(bad.obs), generator=generator)[:BAD_BATCH]
        some = good[torch.randperm(len(good), generator=generator)[:GOOD_BATCH]]
        of_bad = bad[rows].loss(tuned.stream(bad[rows].obs), tuned).mean()
        if float(of_bad.detach()) >= at_least:
            return tuned, step
        with torch.no_grad():
            own = agent.read_out(agent.stream(some)).log_softmax(-1)
        said = tuned.read_out(tuned.stream(some)).log_softmax(-1)
        of_good = (own.exp() * (own - said)).sum(-1)[some >= 0].mean()
        optimizer.zero_grad()
        (of_good - BAD_WEIGHT * of_bad).backward()
        optimizer.step()
    return tuned, STEPS // 2


@torch.no_grad()
def _scored(
    stream: Callable[[Tensor], Tensor], agent: Transformer, prompts: Prompts, others: dict[str, Tensor]
) -> dict[str, Any]:
    """The habit on held-out prompts, with a 95% interval, and the loss of each text of other kinds, in nats."""
    said: list[bool] = []
    losses: list[float] = []
    for i in range(0, len(prompts.obs), AT_ONCE):
        some = prompts[i : i + AT_ONCE]
        logits = agent.decide(stream(some.obs), agent.ends(some.obs))
        said += (logits.argmax(-1) == some.right).tolist()
        losses += F.cross_entropy(logits, some.right, reduction="none").tolist()
    found: dict[str, Any] = {
        "completed": wilson(said).shown(".3f"), "probability": float(np.exp(-np.array(losses)).mean()), "losses": {}
    }  # fmt: skip
    for kind, texts in others.items():
        each = [float(next_word_loss(agent.read_out(stream(text[:, :-1])), text)) for text in texts.split(1)]
        found["losses"][kind] = [round(value, 4) for value in each]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    measure(parser.parse_args(sys.argv[1:]).run)
