"""A transformer as an agent: it has read the beginning of a text, and what it decides is the next word.

Its residual stream is computed in one of two ways. As usual, each block adds to it. Where somebody looks at its *terms*
(the embedding, and what each head and each MLP adds), every head's query, key and value, every MLP and the unembedding
read a sum of their own over all terms before them. That is the same function, in which a connection between any two
parts is a term of its own, to be cut or changed without the others: the graph that `circuits.trace` finds.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.transformer.config import Architecture, TransformerConfig
from rl_interp.agents.transformer.network import Block, Embedding, Ends, Point, block_points, norm
from rl_interp.agents.transformer.self_ablation import Scope, SelfAblation, Streams, ablating
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.as_one import as_one
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import hooked


class Transformer(Agent):
    """Logits `[B, V]` of the next word, from int64 `[B, S]`: numbers of words, and -1 after the last."""

    observation = "tokens"

    def __init__(
        self, shape: Architecture, self_ablation: int = 0, scope: Scope = "local", init_std: float = 0.02
    ):  # fmt: skip
        super().__init__()
        self.shape = shape
        self.embed = Embedding(shape)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.ends = Ends()
        self.norm = norm(shape)
        self.unembed = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.terms = nn.ModuleDict({name: Point() for name in _terms(shape)})
        self._begin(init_std)
        if shape.tied:
            self.unembed.weight = self.embed.words.weight
        # After the other weights, so that a transformer begins with the same ones with and without it.
        self.self_ablation = SelfAblation(shape, self_ablation, scope) if self_ablation else None
        self.hook_points = _points(shape)
        self.graph_points = ("obs", *(f"terms.{name.replace('/', '.')}" for name in self.terms))

    def _begin(self, std: float) -> None:
        """Weights as GPT-2's began, those that write into the stream smaller the more there are of them."""
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                writes = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(weight, std=std / math.sqrt(2 * self.shape.layers) if writes else std)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        ends = self.ends(obs)
        if any(point.watched for point in self.terms.values()):  # pyright: ignore[reportAttributeAccessIssue]
            return PolicyOutput(logits=self._from_terms(self._read(obs), ends))
        return PolicyOutput(logits=self.decide(self.stream(obs), ends))

    def decide(self, stream: Tensor, ends: Tensor) -> Tensor:
        """Logits `[B, V]`, from the stream `[B, S, D]` after the last block, where each text ends, int64 `[B]`."""
        return self.read_out(_at(stream, ends))

    def along(self, tokens: Tensor) -> PolicyOutput:
        """Every decision on the way through texts `[B, S]`: logits `[S, B, V]`, those at time t after the first t + 1
        words. What S steps give, in one pass."""
        return PolicyOutput(logits=self.read_out(self.stream(tokens)).transpose(0, 1))

    def both_streams(self, tokens: Tensor) -> Streams:
        """With self-ablation: the stream after the last block, and the ablated one's."""
        if self.self_ablation is None:
            raise UserError(
                "this transformer was trained without self-ablation, so it has no ablated stream; train one with "
                "`rl-interp train transformer --self-ablation 4`."
            )
        clean, masks = self.stream(tokens), {}
        with hooked(self, ablating(self.self_ablation, self.norm(clean), masks)):
            return Streams(clean, self.stream(tokens), masks)

    def read_out(self, stream: Tensor) -> Tensor:
        """Logits `[..., V]`, from the stream `[..., D]` after the last block."""
        return self.unembed(self.norm(stream))

    def stream(self, tokens: Tensor) -> Tensor:
        """`[B, S, D]`: the residual stream after the last block."""
        x = self._read(tokens)
        for block in self.blocks:
            x = block(x)
        return x

    def _read(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] > self.shape.context:
            raise UserError(
                f"a text of {tokens.shape[1]} words given; this transformer reads {self.shape.context} at most."
            )
        return self.embed(tokens.clamp(min=0))

    def _from_terms(self, embedded: Tensor, ends: Tensor) -> Tensor:
        """Logits `[B, V]`, with every part reading a sum of its own."""
        written = [self.terms["embed"](embedded[:, None])]
        biases: Tensor | None = None  # of attention so far, which are no head's
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            q, k, v = (_sums(written, block.attention.heads, biases) for _ in range(3))
            written.append(self.terms[f"block{number}/heads"](as_one(_attending(block))(q, k, v)))
            if (bias := block.attention.output.bias) is not None:
                biases = bias if biases is None else biases + bias
            if block.mlp is not None:
                made = as_one(_thinking(block))(_sums(written, 1, biases))
                written.append(self.terms[f"block{number}/mlp"](made))
        last = self.terms["last"](_sums(written, 1, biases))
        return as_one(lambda read: self.decide(read[:, 0], ends))(last)


def make_agent(config: TransformerConfig) -> Transformer:
    """The untrained agent of a configuration."""
    return Transformer(config.architecture, config.self_ablation, config.ablation_scope, config.init_std)


def _sums(written: list[Tensor], count: int, constant: Tensor | None) -> Tensor:
    """`[B, count, S, D]`: the sum of all terms `[B, W, S, D]`, as often as there are readers: a product with ones, of
    which each is an edge."""
    terms = torch.cat(written, 1)
    total = F.conv2d(terms, terms.new_ones(count, terms.shape[1], 1, 1))
    return total if constant is None else total + constant


def _attending(block: Block):
    def attending(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return block.attention.by_head(block.norm1(q), block.norm1(k), block.norm1(v))

    return attending


def _thinking(block: Block):
    def thinking(read: Tensor) -> Tensor:
        assert block.mlp is not None
        assert block.norm2 is not None
        return block.mlp(block.norm2(read))

    return thinking


def _at(stream: Tensor, ends: Tensor) -> Tensor:
    """`[B, D]`: the stream `[B, S, D]` where each text ends."""
    return stream[torch.arange(len(ends), device=ends.device), ends]


def _terms(shape: Architecture) -> list[str]:
    parts = ["heads", "mlp"] if shape.hidden else ["heads"]
    return ["embed", *(f"block{number}/{part}" for number in range(shape.layers) for part in parts), "last"]


def _points(shape: Architecture) -> Mapping[str, HookPoint]:
    points = {"embed": HookPoint("embed", "B S D")}
    for number in range(shape.layers):
        points |= block_points(f"block{number}", f"blocks.{number}", bool(shape.hidden))
    points |= {"final": HookPoint("norm", "B D", head="unembed"), "logits": HookPoint("unembed", "B D")}
    terms = {f"terms.{name.replace('/', '.')}": HookPoint(f"terms.{name}", "B C S D") for name in _terms(shape)}
    return points | terms
