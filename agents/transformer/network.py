"""The parts of a transformer. Shape letters: B batch, S positions, D width, H heads, E width of a head, K keys."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.transformer.config import Architecture, Shape
from rl_interp.core.agent import HookPoint


class Point(nn.Module):
    """Where a value passes, for hooks."""

    def forward(self, value: Tensor) -> Tensor:
        return value

    @property
    def watched(self) -> bool:
        """Whether somebody looks."""
        return bool(self._forward_hooks or self._forward_pre_hooks)


class Embedding(nn.Module):
    """Of words, and of their positions where these are learned: int64 `[B, S]` to `[B, S, D]`."""

    def __init__(self, shape: Architecture):
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width) if shape.positions == "learned" else None

    def forward(self, tokens: Tensor) -> Tensor:
        words = self.words(tokens)
        return words if self.positions is None else words + self.positions.weight[: tokens.shape[1]]


class Attention(nn.Module):
    """Causal attention, with keys and values that heads may share."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, self.groups, width = shape.heads, shape.groups, shape.head_width
        self.query = nn.Linear(shape.width, shape.heads * width, shape.bias)
        self.key = nn.Linear(shape.width, shape.groups * width, shape.bias)
        self.value = nn.Linear(shape.width, shape.groups * width, shape.bias)
        self.output = nn.Linear(shape.heads * width, shape.width, shape.bias)
        self.q, self.k, self.v, self.pattern, self.z = (Point() for _ in range(5))
        self.turns = Turns(shape) if shape.positions == "rotary" else None

    def forward(self, x: Tensor) -> Tensor:
        """`[B, S, D]` to `[B, S, D]`."""
        projected = (self.query, self.heads), (self.key, self.groups), (self.value, self.groups)
        q, k, v = (layer(x).unflatten(-1, (count, -1)).transpose(1, 2) for layer, count in projected)
        return self.output(self.z(self._mixed(self.q(q), self.k(k), self.v(v))).transpose(1, 2).flatten(2))

    def by_head(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What each head adds to the residual stream, `[B, H, S, D]`, where each reads queries, keys and values from
        streams of its own, `[B, H, S, D]`. Without the output's bias, which is no head's."""
        shared = self.heads // self.groups
        read = ((self.query, 1, q), (self.key, shared, k), (self.value, shared, v))
        q, k, v = (_head_by_head(layer, times, self.heads, x) for layer, times, x in read)
        z = self.z(self._mixed(q, k, v))
        return z @ self.output.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)

    def _mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`[B, H, S, E]`: each head's values, weighted by its attention."""
        if self.turns is not None:
            q, k = self.turns(q), self.turns(k)
        if not self.pattern.watched:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=len(k[0]) < len(q[0]))
        shared, length = len(q[0]) // len(k[0]), q.shape[-2]
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
        return self.pattern(scores.masked_fill(later, -torch.inf).softmax(-1)) @ v


class Turns(nn.Module):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864): the first half of a head's numbers are turned with the
    second, pair by pair, by an angle that grows with the position."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.width, self.base = shape.head_width, shape.rotary_base

    def forward(self, x: Tensor) -> Tensor:
        """`[B, H, S, E]`, turned."""
        pairs = torch.arange(0, self.width, 2, device=x.device) / self.width
        angles = torch.outer(torch.arange(x.shape[-2], device=x.device), self.base**-pairs)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.chunk(2, -1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class MLP(nn.Module):
    """`[..., D]` to `[..., D]`."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.gated = shape.mlp == "gated"
        self.up = nn.Linear(shape.width, shape.hidden, shape.bias)
        self.gate = nn.Linear(shape.width, shape.hidden, shape.bias) if self.gated else None
        self.down = nn.Linear(shape.hidden, shape.width, shape.bias)
        self.pre, self.post = Point(), Point()

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.post(F.gelu(self.pre(self.up(x)), approximate="tanh")))
        return self.down(self.post(F.silu(self.pre(self.gate(x))) * self.up(x)))


class Block(nn.Module):
    """Attention and an MLP, each on the norm of the stream, and added to it."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.norm1, self.attention = norm(shape), Attention(shape)
        self.mid = Point()
        self.norm2, self.mlp = (norm(shape), MLP(shape)) if shape.hidden else (None, None)

    def forward(self, x: Tensor) -> Tensor:
        return self.think(self.mid(x + self.attention(self.norm1(x))))

    def think(self, x: Tensor) -> Tensor:
        """The stream after the MLP, from that before it, `[..., D]`."""
        return x if self.mlp is None or self.norm2 is None else x + self.mlp(self.norm2(x))


class Ends(nn.Module):
    """Where texts end: int64 `[B]` from `[B, S]` with negative numbers after the last word."""

    def forward(self, tokens: Tensor) -> Tensor:
        return (tokens >= 0).sum(-1) - 1


def block_points(name: str, path: str, mlp: bool = True) -> dict[str, HookPoint]:
    """The hook points of a block, named after it. Units of "B C S D" are the C heads; of "B S D", the D numbers."""
    points = {f"{name}.{each}": HookPoint(f"{path}.attention.{each}", "B C S D") for each in ("q", "k", "v")}
    points |= {
        f"{name}.pattern": HookPoint(f"{path}.attention.pattern", "B C S K"),
        f"{name}.z": HookPoint(f"{path}.attention.z", "B C S D"),
        f"{name}.attention": HookPoint(f"{path}.attention", "B S D"),
        f"{name}.mid": HookPoint(f"{path}.mid", "B S D"),
    }
    if mlp:
        points |= {
            f"{name}.mlp.in": HookPoint(f"{path}.norm2", "B S D"),
            f"{name}.mlp.pre": HookPoint(f"{path}.mlp.pre", "B S D"),
            f"{name}.mlp.post": HookPoint(f"{path}.mlp.post", "B S D"),
            f"{name}.mlp": HookPoint(f"{path}.mlp", "B S D"),
        }
    return points | {f"{name}.sum": HookPoint(path, "B S D")}


def norm(shape: Shape) -> nn.Module:
    """Of the stream."""
    kind = nn.LayerNorm if shape.norm == "layer" else nn.RMSNorm
    return kind(shape.width, eps=shape.norm_eps)


def _head_by_head(layer: nn.Linear, shared: int, heads: int, x: Tensor) -> Tensor:
    """`[B, H, S, E]`: a layer of heads, each on a stream of its own, `[B, H, S, D]`; so many heads share weights."""
    weight = layer.weight.unflatten(0, (heads // shared, -1)).repeat_interleave(shared, 0)
    out = x @ weight.mT
    if layer.bias is None:
        return out
    return out + layer.bias.unflatten(0, (heads // shared, 1, -1)).repeat_interleave(shared, 0)
