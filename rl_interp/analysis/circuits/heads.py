"""Every attention head of a transformer cut alone, each at the price of the blocks after it."""

from collections.abc import Callable

import torch
from torch import Tensor

from rl_interp.agents.transformer import Transformer
from rl_interp.agents.transformer.network import Block
from rl_interp.core.agent import evaluating
from rl_interp.core.progress import Update


@torch.no_grad()
def without_each_head(
    agent: Transformer,
    obs: Tensor,
    score: Callable[[Tensor], Tensor],
    replacement: Callable[[Tensor], Tensor] = torch.zeros_like,
    update: Update = lambda done, note="": None,
) -> Tensor:
    """`[L, H, N, ...]`: a score of the decisions on texts `obs [N, S]` without each of the H heads of the L blocks.

    The stream before a block is computed once; from there, all heads of a block are cut side by side, and only the
    blocks after it are computed. Positions at which no text has a word any more are left out.

    Args:
        score: from logits `[N, V]` to `[N]`, or to several of each, `[N, ...]`.
        replacement: from what the heads read, `z [N, H, S, E]`, to what takes its place, of the same shape.
    """
    found, ends = [], agent.ends(obs)
    blocks = [block for block in agent.blocks if isinstance(block, Block)]
    with evaluating(agent):
        x = agent.embed(obs[:, : int(ends.max()) + 1].clamp(min=0))
        for number, block in enumerate(blocks):
            kept: list[Tensor] = []
            handle = block.attention.z.register_forward_hook(lambda module, args, z, kept=kept: kept.append(z))
            try:
                after = block(x)
            finally:
                handle.remove()
            (z,) = kept
            new, heads = replacement(z), z.shape[1]
            each = z.expand(heads, *z.shape).clone()  # [H, N, H, S, E]
            for head in range(heads):
                each[head, :, head] = new[:, head]
            attended = block.attention.output(each.transpose(2, 3).flatten(3))
            stream = block.think(x + attended).flatten(0, 1)
            for later in blocks[number + 1 :]:
                stream = later(stream)
            logits = agent.decide(stream, ends.repeat(heads)).unflatten(0, (heads, len(obs)))
            found.append(torch.stack([score(each) for each in logits]))
            x = after
            update(number + 1)
    return torch.stack(found)
