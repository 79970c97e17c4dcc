"""Local perturbation: what an agent answers when small places of a picture change, by computing only what changes.

A mask's change reaches a box of each layer, which follows from kernels, strides and paddings. `changed` runs the agent
on tensors that know their boxes, `regions` and `loops` compute in them, by the `products` of the innermost loop. On the
Nature CNN with masks of 41 by 41 of 84 by 84 pixels that is 0.6 of 2.2 billion multiplications. Masks are rows times
columns, so the first convolution is one over columns for each profile of columns, and one of rows for each mask.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from rl_interp.core.agent import HEADS, Agent, PolicyOutput, State, tree_map
from rl_interp.core.check_agent import alike
from rl_interp.saliency.local.changed import Changed, NotLocalError
from rl_interp.saliency.local.regions import Products, Regions, Sums

__all__ = ["Answers", "answers", "answers_to_sums", "is_local", "outputs_near"]


@dataclass(frozen=True)
class Answers:
    """What an agent returns without masks, leaves `[1, ...]`, and with each, leaves `[R · K, ...]`, row by row. All in
    float64: a change is known to more digits than what it is a change of."""

    before: PolicyOutput
    after: PolicyOutput


def is_local(agent: Agent) -> bool:
    """Whether `answers` may be asked: a network with convolutions, in float32 on the CPU, and nobody watches or changes
    its values by hooks, which would see what they are not made for."""
    modules = list(agent.modules())
    return (
        agent.observation == "pixels"
        and any(isinstance(module, nn.Conv2d) for module in modules)
        and all(each.dtype == torch.float32 and each.device.type == "cpu" for each in agent.parameters())
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    )


@torch.no_grad()
def answers(
    agent: Agent, image: Tensor, towards: Tensor, rows: Tensor, columns: Tensor, state: State = ()
) -> Answers | None:
    """What an agent answers on image + mask · (towards − image), for masks that are each of `rows [R, H]` times each of
    `columns [K, W]`; None where it does something for which pictures must be there as a whole.

    Args:
        image: `[1, C, H, W]` float32, as is `towards`.
        state: the agent's, with a batch of 1.
    """
    change = (towards - image)[0].permute(1, 2, 0).contiguous().numpy()
    products = Products(change, *(np.ascontiguousarray(each.numpy(), np.float32) for each in (rows, columns)))
    order = torch.arange(len(products)).view(len(columns), len(rows)).T.flatten()
    return _answers(agent, image, products, state, order)


@torch.no_grad()
def answers_to_sums(agent: Agent, image: Tensor, parts: Tensor, present: Tensor, state: State = ()) -> Answers | None:
    """What an agent answers on an image with those of some `parts [J, C, H, W]` added for which `present [N, J]` is 1;
    None where it does something for which pictures must be there as a whole. `image` and `state` as for `answers`."""
    return _answers(agent, image, Sums(parts, present), state)


def _answers(
    agent: Agent, image: Tensor, change: Products | Sums, state: State, order: Tensor | None = None
) -> Answers | None:
    masks = len(change)
    many = tree_map(lambda leaf: leaf.expand(masks, *leaf.shape[1:]), state)
    try:
        after = agent.step(Changed(image, change, (masks, *image.shape[1:])), many)
    except NotLocalError:
        return None
    heads = {name: getattr(after, name) for name in HEADS}
    known = {name: leaf for name, leaf in heads.items() if leaf is not None}
    if all(isinstance(leaf, Changed) for leaf in known.values()):
        before = {name: leaf.base.double().reshape(1, *leaf.shape[1:]) for name, leaf in known.items()}
    else:
        plain = agent.step(image, state)
        before = {name: getattr(plain, name).double() for name in known}
    found = {name: _exact(leaf, before[name]) for name, leaf in known.items()}
    if order is not None:
        found = {name: leaf[order] for name, leaf in found.items()}
    return Answers(PolicyOutput(**before), PolicyOutput(**found))


@torch.no_grad()
def outputs_near(agent: Agent, images: Tensor, base: Tensor, state: State = ()) -> PolicyOutput | None:
    """What an agent returns for images that differ from one in small places; None where it takes floats for something
    else than the bytes that they stand for, or does something for which pictures must be there as a whole.

    Args:
        images: `[N, C, H, W]` bytes.
        base: `[1, C, H, W]`, which they are near to.
        state: the agent's, with a batch of N.
    """
    near = base.float()
    try:
        out = agent.step(Changed(near, Regions.between(near, images.float()), tuple(images.shape)), state)
    except NotLocalError:
        return None
    heads = {name: getattr(out, name) for name in ("logits", "q_values", "value", "mean", "std")}
    found = PolicyOutput(**{n: leaf.whole() if isinstance(leaf, Changed) else leaf for n, leaf in heads.items()})
    first = agent.step(images[:1], tree_map(lambda leaf: leaf[:1], state))
    return found if alike(found.preferences[:1], first.preferences) else None


def _exact(leaf: Tensor, before: Tensor) -> Tensor:
    """`[N, ...]` in float64, of a leaf that may know its change apart."""
    if isinstance(leaf, Changed) and isinstance(leaf.change, Tensor):
        return before + leaf.change.double().reshape(len(leaf.change), *before.shape[1:])
    return leaf.double()
