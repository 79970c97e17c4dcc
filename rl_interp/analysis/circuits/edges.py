"""Edges of a transformer cut, for models too large for `circuits.behaviour.Behaviour`.

That keeps what every reader reads in every state: of SmolLM2, 750 MB a prompt. Here all readers share one stream, and
only those that an edge is cut of get one of their own. What takes the place of what a source adds is the same for all
its readers: its mean over other texts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

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
        sums = torch.zeros_like(edges.means)
        for some, there in zip(texts.split(_AT_ONCE), read.split(_AT_ONCE), strict=True):
            first = 0
            for terms in edges._run(some).sources:
                seen = terms * there
                sums[first : first + terms.shape[1]] += torch.stack(
                    [seen[:, :, 0].sum(0), seen[:, :, 1:].sum((0, 2))], 1
                )
                first += terms.shape[1]
        return cls(agent, sums / torch.stack([read[:, 0, :1].sum(), read[:, 0, 1:].sum()])[:, None])

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

    def stream(self, tokens: Tensor, cut: Tensor, kept: Tensor | None = None) -> Tensor:
        """`[B, S, D]`: what the unembedding reads of texts int64 `[B, S]`, without the edges `cut`, int64 `[C]`, or
        with these kept as far as `kept [C]` says, from 0 to 1. Differentiable in that."""
        with evaluating(self.agent):
            return self._run(tokens, cut, torch.zeros(len(cut)) if kept is None else kept).streams[-1][:, 0]

    def slopes(self, tokens: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """`[E]`: by how much a loss rises where an edge is cut, to first order (EAP, Syed et al. 2023, arXiv
        2310.10348).

        Args:
            loss: of the stream `[B, S, D]` that the unembedding reads, a scalar.
        """
        with evaluating(self.agent), torch.enable_grad():
            run = self._run(tokens, apart=True)
            slopes = torch.autograd.grad(loss(run.streams[-1][:, 0]), run.streams)
        away = torch.cat([each.detach() for each in run.sources], 1).transpose(0, 1).flatten(1)  # [W, B * S * D]
        found = []
        for slope, (_, _, sources) in zip(slopes, self.shapes, strict=True):
            found.append((-slope.transpose(0, 1).flatten(1) @ away[:sources].mT).flatten())
        return torch.cat(found)

    def _run(
        self, tokens: Tensor, cut: Tensor | None = None, kept: Tensor | None = None, apart: bool = False
    ) -> "_Run":
        """A pass through the blocks; `apart` gives every reader a stream of its own, though all are alike."""
        cut = torch.zeros(0, dtype=torch.int64) if cut is None else cut
        kept = torch.zeros(len(cut)) if kept is None else kept
        run, first, shapes = _Run([], []), 0, iter(self.shapes)

        def read(x: Tensor) -> Tensor:
            """`[B, R, S, D]`: what the next readers read, of the stream `[B, S, D]`; R is 1 if all read the same."""
            nonlocal first
            _, readers, sources = next(shapes)
            rows = ((cut >= first) & (cut < first + readers * sources)).nonzero()[:, 0]
            reader, source = (cut[rows] - first).div(sources, rounding_mode="floor"), (cut[rows] - first) % sources
            first += readers * sources
            stream = x[:, None]
            if apart or len(rows):
                stream = stream.expand(-1, readers, -1, -1)
            if len(rows):
                gone = torch.stack([run.source(int(each)) for each in source], 1) * (1 - kept[rows])[:, None, None]
                stream = stream.index_add(1, reader, -gone)
            run.streams.append(stream)
            return stream

        def write(x: Tensor, terms: Tensor) -> Tensor:
            """The stream with what sources add to it, `[B, n, S, D]`."""
            at = sum(each.shape[1] for each in run.sources)
            means = self.means[at : at + terms.shape[1]]
            run.sources.append(terms - torch.cat([means[:, :1], means[:, 1:].expand(-1, terms.shape[2] - 1, -1)], 1))
            return x + terms.sum(1)

        words = self.agent.embed(tokens.clamp(min=0)).detach().requires_grad_(apart)
        x = write(torch.zeros_like(words), words[:, None])
        for block in self.agent.blocks:
            assert isinstance(block, Block)
            assert block.mlp is not None
            assert block.norm2 is not None
            q, k, v = (block.norm1(read(x)) for _ in range(3))
            x = write(x, block.attention.by_head(q, k, v))
            x = write(x, block.mlp(block.norm2(read(x))))
        read(x)
        return run


_AT_ONCE = 4
"""Texts of which all terms are kept at once."""


@dataclass(frozen=True)
class _Run:
    streams: list[Tensor]
    """`[B, R, S, D]`: what readers read, kind by kind."""
    sources: list[Tensor]
    """`[B, n, S, D]`: what sources add, less their means."""

    def source(self, number: int) -> Tensor:
        """`[B, S, D]`, of one of them."""
        for each in self.sources:
            if number < each.shape[1]:
                return each[:, number]
            number -= each.shape[1]
        raise IndexError(number)
