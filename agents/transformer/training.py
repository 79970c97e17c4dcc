"""Training a transformer: to say the next word of texts that a grammar draws."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.impala.self_ablation import ABLATED_COST
from rl_interp.agents.loop import check_finite, score, train_run
from rl_interp.agents.transformer.agent import Transformer, make_agent
from rl_interp.agents.transformer.config import TransformerConfig
from rl_interp.core.device import pick_device
from rl_interp.core.envs import TextConfig
from rl_interp.core.envs.text.config import NOTHING
from rl_interp.core.envs.text.game import Reader
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.rollout import Episodes
from rl_interp.core.run import Run, load_into

_FINAL = 0.1
"""Of the step size, what is left of it in the end."""


class Descent(Protocol):
    """What of a configuration says how weights are fitted."""

    @property
    def agent_steps(self) -> int: ...

    @property
    def num_envs(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    @property
    def warmup(self) -> int: ...

    @property
    def weight_decay(self) -> float: ...


class Training:
    """The state of a run: everything that a checkpoint saves and a resumed run gets back, bit for bit."""

    def __init__(self, config: TransformerConfig, seed: int, device: str = "auto"):
        torch.manual_seed(seed)
        assert isinstance(config.env, TextConfig)
        self.config, self.seed, self.device = config, seed, pick_device(device)
        self.texts = Texts(config.env, config.architecture.context)
        self.agent = make_agent(config).to(self.device)
        self.optimizer = optimizer(self.agent, config)
        self.bf16 = config.computes_in_bf16(self.device)
        self.rng = np.random.default_rng(seed)
        self.agent_steps = self.updates = 0
        self._losses: list[Tensor] = []
        self._ablated: list[Tensor] = []

    def advance(self) -> None:
        """One update."""
        config, batch = self.config, self.texts.draw(self.config.num_envs, self.rng).to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(self.agent_steps, config)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.agent.parameters(), config.max_grad_norm)
        self.optimizer.step()
        self._losses.append(loss.detach())
        self.updates += 1
        self.agent_steps += int((batch[:, 1:] != NOTHING).sum())

    def _loss(self, texts: Tensor) -> Tensor:
        if self.agent.self_ablation is None:
            return text_loss(self.agent, texts)
        streams = self.agent.both_streams(texts[:, :-1])
        clean, ablated = (next_word_loss(self.agent.read_out(each), texts) for each in (streams.clean, streams.ablated))
        self._ablated.append(ablated.detach())
        return clean + ABLATED_COST * ablated + self.config.distance_cost * streams.distance

    def metrics(self) -> dict[str, float]:
        """The mean loss, in nats a word, since the last call; with self-ablation, weighted with that of the ablated
        stream, which is given too."""
        values: dict[str, float] = {"updates": self.updates}
        if self._losses:
            values["loss"] = float(torch.stack(self._losses).mean())
            check_finite(values["loss"], self.agent_steps)
            self._losses.clear()
        if self._ablated:
            values["ablated_loss"] = float(torch.stack(self._ablated).mean())
            self._ablated.clear()
        return values

    def score(self) -> Episodes:
        """The share of held-out prompts, drawn by another seed, of which it says a right next word."""
        return score(self.agent, self.config, self.seed, 128)

    def state(self) -> dict[str, Any]:
        return {
            "agent_steps": self.agent_steps,
            "learner": {"updates": self.updates, "optimizer": self.optimizer.state_dict()},
            "rng": self.rng.bit_generator.state,
        }

    def restore(self, weights: Mapping[str, Tensor], state: Mapping[str, Any], source: Path) -> None:
        load_into(self.agent, weights, source)
        self.optimizer.load_state_dict(state["learner"]["optimizer"])
        self.updates, self.agent_steps = state["learner"]["updates"], state["agent_steps"]
        self.rng.bit_generator.state = state["rng"]

    def continue_from(self, weights: Mapping[str, Tensor], agent_steps: int, source: Path) -> None:
        """Go on from weights alone: the optimiser starts afresh, on other texts."""
        load_into(self.agent, weights, source)
        self.agent_steps = agent_steps
        self.rng = np.random.default_rng([self.seed, agent_steps])

    def close(self) -> None:
        pass


class Texts:
    """Texts of a grammar, as numbers."""

    def __init__(self, env: TextConfig, context: int):
        self.env, self.context = env, context
        self.reader = Reader(env)

    def draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """int64 `[count, S]`, -1 after the end of shorter ones; the last word is only predicted."""
        grammar, split = self.env.grammar, self.env.split
        texts = [self.reader.numbers(grammar.text(rng, split))[: self.context + 1] for _ in range(count)]
        batch = np.full((count, max(map(len, texts))), NOTHING, np.int64)
        for row, text in zip(batch, texts, strict=True):
            row[: len(text)] = text
        return torch.from_numpy(batch)


def text_loss(agent: Transformer, texts: Tensor) -> Tensor:
    """Mean cross-entropy of each next word of texts `[B, S]`, in nats."""
    return next_word_loss(agent.read_out(agent.stream(texts[:, :-1])), texts)


def next_word_loss(logits: Tensor, texts: Tensor) -> Tensor:
    """The same of logits `[B, S - 1, V]`."""
    return F.cross_entropy(logits.flatten(0, 1).float(), texts[:, 1:].flatten(), ignore_index=NOTHING)


def optimizer(agent: nn.Module, config: Descent) -> torch.optim.AdamW:
    """AdamW, which lets matrices decay, and no biases and norms."""
    matrices = [weight for weight in agent.parameters() if weight.dim() > 1]
    others = [weight for weight in agent.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, 0.95), fused=True)


def schedule(step: int, config: Descent) -> float:
    """Of the step size: a warm-up, then a half cosine."""
    if step < config.warmup:
        return (step + config.num_envs) / (config.warmup + config.num_envs)
    done = min(1.0, (step - config.warmup) / max(1, config.agent_steps - config.warmup))
    return _FINAL + (1 - _FINAL) * 0.5 * (1 + math.cos(math.pi * done))


def train(
    config: TransformerConfig, run: Run, seed: int, device: str = "auto", progress: Progress = SILENT
) -> Episodes:
    """Train a transformer's run to its end, from wherever it stands; see `agents.loop.train_run`."""
    return train_run(Training(config, seed, device), config, run, progress)
