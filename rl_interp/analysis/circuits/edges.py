"""All edges of a transformer under one mask, for models too large for `circuits.behaviour.Behaviour`.

That keeps what every reader reads in every state: of SmolLM2, 750 MB a prompt. Here what a source adds to the stream is
kept once, whoever reads it, and what takes its place is the same for all its readers: its mean over other texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_interp.agents.transformer import Transformer
from rl_interp.agents.transformer.network import Block
from rl_interp.core.agent import evaluating
from rl_interp.core.errors import UserError


@dataclass(frozen=True)
class Edges:
    """The edges of a transformer, and what they carry when they are cut.

    Sources, W in number, are the embedding, and by block its H heads and its MLP. Readers are, by block, queries, keys
    and values of its heads, and its MLP; last the unembedding. A reader has an edge from every source before it, and
    edges are numbered reader by reader.

    Attributes:
        means: `[W, 2, D]`: of each source at the first position, where transformers often park attention, and at all
            others.
    """

    agent: Transformer
    means: Tensor = field(repr=False)

    @classmethod
    @torch.no_grad()
    def of(cls, agent: Transformer, texts: Tensor) -> "Edges":
        """With means over texts, int64 `[N, S]`, -1 after the end of shorter ones.

        Raises:
            UserError: a transformer without MLPs, or with biases in the products of its attention's output.
        """
        blocks = [block for block in agent.blocks if isinstance(block, Block)]
        if any(block.mlp is None or block.attention.output.bias is not None for block in blocks):
            raise UserError("edges of a transformer with MLPs and without biases can be cut; this one is not such.")
        edges = cls(agent, torch.zeros(1 + len(blocks) * (agent.shape.heads + 1), 2, agent.shape.width))
        read = (texts >= 0)[:, None, :, None]
        sums, counts = torch.zeros_like(edges.means), read[:, 0, 1:].sum()
        for some, there in zip(texts.split(4), read.split(4), strict=True):
            terms = edges._run(some, None)[1] * there
            sums += torch.stack([terms[:, :, 0].sum(0), terms[:, :, 1:].sum((0, 2))], 1)
        return cls(agent, sums / torch.stack([torch.tensor(len(texts)), counts])[:, None])

    @cached_property
    def shapes(self) -> list[tuple[str, int, int]]:
        """Of each kind of reader: its name, how many of them there are, and how many sources are before them."""
        heads, found, before = self.agent.shape.heads, [], 1
        for block in range(self.agent.shape.layers):
            found += [(f"{block}.{each}", heads, before) for each in ("query", "key", "value")]
            found.append((f"{block}.mlp", 1, before + heads))
            before += heads + 1
        return [*found, ("unembedding", 1, before)]

    def __len__(self) -> int:
        return sum(readers * sources for _, readers, sources in self.shapes)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Names of the sources."""
        heads = range(self.agent.shape.heads)
        blocks = range(self.agent.shape.layers)
        return ("embedding", *(name for b in blocks for name in (*(f"head {b}.{h}" for h in heads), f"mlp {b}")))

    @cached_property
    def source_of(self) -> Tensor:
        """int64 `[E]`: the number of each edge's source."""
        return torch.cat([torch.arange(sources).repeat(readers) for _, readers, sources in self.shapes])

    def name(self, edge: int) -> str:
        """Such as "head 3.4 to 5.key 2"."""
        for name, readers, sources in self.shapes:
            if edge < readers * sources:
                reader, source = divmod(edge, sources)
                return f"{self.sources[source]} to {name}{f' {reader}' if readers > 1 else ''}"
            edge -= readers * sources
        raise IndexError(edge)

    def stream(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """`[B, S, D]`: what the unembedding reads of texts int64 `[B, S]`, where an edge is kept as far as `kept [E]`
        says, from 0 to 1. Differentiable in that."""
        with evaluating(self.agent):
            return self._run(tokens, kept)[0]

    def _run(self, tokens: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the unembedding reads, and what all sources add, `[B, W, S, D]`, less their means."""
        masks = self._masks(kept)
        away = self._less_means(self.agent.embed(tokens.clamp(min=0))[:, None], 0)
        put = torch.stack([self.means[:, min(s, 1)].cumsum(0) for s in range(tokens.shape[1])], 1)  # [W, S, D]
        for block in self.agent.blocks:
            assert isinstance(block, Block)
            assert block.mlp is not None
            assert block.norm2 is not None
            q, k, v = (_read(next(masks), away, put) for _ in range(3))
            heads = block.attention.by_head(block.norm1(q), block.norm1(k), block.norm1(v))
            away = torch.cat([away, self._less_means(heads, away.shape[1])], 1)
            thought = block.mlp(block.norm2(_read(next(masks), away, put)))
            away = torch.cat([away, self._less_means(thought, away.shape[1])], 1)
        return _read(next(masks), away, put)[:, 0], away

    def _masks(self, kept: Tensor | None) -> Iterator[Tensor]:
        if kept is None:
            return (self.means.new_ones(readers, sources) for _, readers, sources in self.shapes)
        sizes = [readers * sources for _, readers, sources in self.shapes]
        parts: Sequence[Tensor] = kept.split(sizes)
        return (part.unflatten(0, shape[1:]) for part, shape in zip(parts, self.shapes, strict=True))

    def _less_means(self, terms: Tensor, first: int) -> Tensor:
        """`[B, n, S, D]`, of the sources from the `first` on."""
        means = self.means[first : first + terms.shape[1]]
        return terms - torch.cat([means[:, :1], means[:, 1:].expand(-1, terms.shape[2] - 1, -1)], 1)


def next_word_losses(edges: Edges, tokens: Tensor, kept: Tensor) -> Tensor:
    """`[B, S - 1]`: of each word after the first of texts `[B, S]`, in nats; 0 after their end."""
    logits = edges.agent.read_out(edges.stream(tokens[:, :-1], kept))
    return F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], ignore_index=-1, reduction="none")


def _read(mask: Tensor, away: Tensor, put: Tensor) -> Tensor:
    """`[B, R, S, D]`: what R readers read, by masks `[R, W]`: means, and so much of how far sources are `away` from
    them, `[B, W, S, D]`."""
    return (mask @ away.flatten(2)).unflatten(2, away.shape[2:]) + put[mask.shape[1] - 1]
