"""The networks: a GPT that denoises actions, and the same one as a policy that says the action itself.

Shape letters: B batch, K steps of the window, S state, A action, P places of the sequence, D width.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from rl_interp.agents.beso.diffusion import preconditioning
from rl_interp.agents.transformer.config import Shape
from rl_interp.agents.transformer.network import Block, Point, block_points, norm
from rl_interp.core.agent import HookPoint

GOAL = 1
"""The place of the goal in a denoiser's sequence, after the noise level."""
ACTING = ("state", "action")
"""Places of the step that is acted in, which move with the window as it fills."""


class Trunk(nn.Module):
    """Blocks and the norm after them.

    Args:
        places: names of places at which the stream after each block is a hook point of its own.
    """

    def __init__(self, shape: Shape, places: Sequence[str] = ()):
        super().__init__()
        self.embed = Point()
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.places = nn.ModuleDict({f"{name}{number}": Point() for name in places for number in range(shape.layers)})
        self.norm = norm(shape)

    def forward(self, tokens: Tensor, places: Mapping[str, Tensor] | None = None) -> Tensor:
        """`[B, P, D]` to `[B, P, D]`. `places` says where each of the named ones is, `[B]`."""
        x = self.embed(tokens)
        for number, block in enumerate(self.blocks):
            x = block(x)
            for name, place in (places or {}).items():
                point = self.places[f"{name}{number}"]
                if point.watched:
                    rows = torch.arange(len(x), device=x.device), place
                    x = x.index_put(rows, point(x[rows]))
        return self.norm(x)


class Denoiser(nn.Module):
    """D(a; σ, s, g): actions without their noise, all of a window's at once (Reuss et al. 2023, fig. 2).

    The sequence is σ, g, s₁, a₁, s₂, a₂, ... Goal and states go through one linear map, σ as ln σ / 4; a state and its
    action have the same position. Attention is causal, so that what comes after a step does not matter for it.
    """

    def __init__(self, shape: Shape, states: int, actions: int, window: int):
        super().__init__()
        self.sigma, self.state, self.action = (nn.Linear(size, shape.width) for size in (1, states, actions))
        self.positions = nn.Parameter(torch.zeros(window + 1, shape.width))
        self.trunk = Trunk(shape, ACTING)
        self.final = Point()
        self.head = nn.Linear(shape.width, actions)
        self.noised, self.denoised = Point(), Point()
        begin(self, shape)

    def forward(
        self, noised: Tensor, sigma: Tensor, states: Tensor, goal: Tensor, acting: Tensor | None = None
    ) -> Tensor:
        """Denoised actions `[B, K, A]`, from noised ones `[B, K, A]`, their noise level `[B]`, and states `[B, K, S]`
        and goal `[B, S]`, both standardised. `acting` `[B]`, the step of the window that is acted in, is asked for by
        hooks alone."""
        noised = self.noised(noised)
        skip, out, into = (each[:, None, None] for each in preconditioning(sigma))
        return self.denoised(skip * noised + out * self.raw(into * noised, sigma, states, goal, acting))

    def raw(self, scaled: Tensor, sigma: Tensor, states: Tensor, goal: Tensor, acting: Tensor | None = None) -> Tensor:
        """F, the network itself, `[B, K, A]`, from noised actions of variance 1."""
        steps = states.shape[1]
        positions = self.positions[1 : steps + 1]
        pairs = torch.stack([self.state(states) + positions, self.action(scaled) + positions], 2).flatten(1, 2)
        level = self.sigma(sigma.log()[:, None] / 4)
        first = torch.stack([level, self.state(goal) + self.positions[0]], 1)
        places = None if acting is None else {name: GOAL + 1 + 2 * acting + i for i, name in enumerate(ACTING)}
        return self.head(self.final(self.trunk(torch.cat([first, pairs], 1), places)[:, GOAL + 2 :: 2]))

    @staticmethod
    def points(shape: Shape) -> Mapping[str, HookPoint]:
        """Places of a sequence, "S", are σ, the goal, and each step's state and action; of the others, the steps.
        `blockN.state` and `blockN.action` are `blockN.sum` at the places of the step that is acted in."""
        points = {"noised": HookPoint("noised", "B S D"), "embed": HookPoint("trunk.embed", "B S D")}
        for number in range(shape.layers):
            points |= block_points(f"block{number}", f"trunk.blocks.{number}", bool(shape.hidden))
            points |= {f"block{number}.{name}": HookPoint(f"trunk.places.{name}{number}", "B D") for name in ACTING}
        return points | {"final": HookPoint("final", "B S D"), "denoised": HookPoint("denoised", "B S D")}


class Cloner(nn.Module):
    """What to do in each state of a window, said at once: `[B, K, outputs]`, from the sequence g, s₁, s₂, ..."""

    def __init__(self, shape: Shape, states: int, outputs: int, window: int):
        super().__init__()
        self.state = nn.Linear(states, shape.width)
        self.positions = nn.Parameter(torch.zeros(window + 1, shape.width))
        self.trunk = Trunk(shape)
        self.final = Point()
        self.head = nn.Linear(shape.width, outputs)
        begin(self, shape)

    def forward(self, states: Tensor, goal: Tensor) -> Tensor:
        tokens = self.state(torch.cat([goal[:, None], states], 1)) + self.positions[: states.shape[1] + 1]
        return self.head(self.final(self.trunk(tokens)[:, 1:]))

    @staticmethod
    def points(shape: Shape) -> Mapping[str, HookPoint]:
        points = {"embed": HookPoint("trunk.embed", "B S D")}
        for number in range(shape.layers):
            points |= block_points(f"block{number}", f"trunk.blocks.{number}", bool(shape.hidden))
        return points | {"final": HookPoint("final", "B S D")}


def begin(network: nn.Module, shape: Shape) -> None:
    """Weights as GPT-2's began, those that write into the stream smaller the more there are of them."""
    for name, weight in network.named_parameters():
        if weight.dim() > 1:
            writes = name.endswith(("output.weight", "down.weight"))
            nn.init.normal_(weight, std=0.02 / (2 * shape.layers) ** 0.5 if writes else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
    for layer in network.children():
        if isinstance(layer, nn.Linear) and layer.in_features < shape.width:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)  # few numbers, which would else hardly be heard
