"""Running an agent again from a hook point on: many edits of one layer cost only the layers after it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, PolicyOutput, tree_map
from rl_interp.core.errors import HookError
from rl_interp.core.hooks import hook_point, run_with_cache


class Rerun:
    """What an agent makes of observations, again and again, with other values at one hook point.

    What was finished when the point's value was there is not computed again: modules that are called once answer with
    what they gave the first time. Of these, only those that something after the point reads, such as the other arm of a
    residual sum, are copied for each run.

    Args:
        obs: `[N, ...]`, each seen as an episode's first.

    Raises:
        HookError: no such hook point, or one whose value is not there exactly once in a step, or is no module's output.
    """

    def __init__(self, agent: Agent, obs: Tensor, at: str):
        point = hook_point(agent, at)
        if point.side != "output" or point.kind == "recurrent":
            raise HookError(f"{at!r} can't be run again from: it must be what a module gives once in a step.")
        self.agent, self.obs = agent, obs
        self._target = agent.get_submodule(point.path)
        with torch.no_grad():
            finished = self._finished(at)
        leaves = {m: given.detach().requires_grad_() for m, given in finished.items() if given.is_floating_point()}
        with torch.enable_grad(), _answering({m: lambda given=given: given for m, given in leaves.items()}):
            out = agent.step(obs, agent.initial_state(len(obs)))
        read = _read(out, leaves)
        self._given: dict[nn.Module, tuple[Tensor, bool]] = {}
        for module, given in finished.items():
            if module != self._target:
                needed = module in read or module not in leaves
                self._given[module] = (given if needed else given[:1].clone(), needed)  # the rest need not be kept
        self.values = finished[self._target]
        """`[N, ...]`: the values at the point, to be edited."""

    def _finished(self, at: str) -> dict[nn.Module, Tensor]:
        """Modules called once, whose output was there when the point's value was, and the point's own."""
        calls: dict[nn.Module, int] = {}
        outputs: dict[nn.Module, Any] = {}

        def note(module: nn.Module, args: Any, output: Any) -> None:
            calls[module] = calls.get(module, 0) + 1
            if calls.get(self._target, 0) == (module is self._target):
                outputs[module] = output

        handles = [module.register_forward_hook(note) for module in self.agent.modules() if module is not self.agent]
        try:
            run_with_cache(self.agent, self.obs, names=[at])
        finally:
            for handle in handles:
                handle.remove()
        if calls[self._target] != 1:
            raise HookError(f"{at!r} is computed {calls[self._target]} times in a step; it can't be run again from.")
        return {module: out for module, out in outputs.items() if calls[module] == 1 and isinstance(out, Tensor)}

    @torch.no_grad()
    def __call__(self, values: Tensor, rows: Tensor | None = None) -> PolicyOutput:
        """Decisions with `values [P, ...]` at the point, each on one of the observations, `rows [P]` (by default the
        P-th)."""
        count = len(values)
        rows = torch.arange(count, device=values.device) if rows is None else rows

        def answer(given: Tensor, read: bool) -> Callable[[], Tensor]:
            return lambda: given[rows] if read else given[:1].expand(count, *given.shape[1:])

        answers = {module: answer(*each) for module, each in self._given.items()}
        obs = self.obs[:1].expand(count, *self.obs.shape[1:])
        with _answering({**answers, self._target: lambda: values}):
            return self.agent.step(obs, self.agent.initial_state(count))


def _read(out: PolicyOutput, leaves: Mapping[nn.Module, Tensor]) -> set[nn.Module]:
    """The modules whose output an agent's own depends on; all of them where that can't be told."""
    ends: list[Tensor] = []
    tree_map(lambda leaf: ends.append(leaf) or leaf, out)
    sums = [end.float().sum() for end in ends if end.requires_grad]
    if not sums:
        return set(leaves)
    gradients = torch.autograd.grad(torch.stack(sums).sum(), list(leaves.values()), allow_unused=True)
    return {module for module, gradient in zip(leaves, gradients, strict=True) if gradient is not None}


@contextmanager
def _answering(answers: Mapping[nn.Module, Callable[[], Tensor]]) -> Iterator[None]:
    """Modules that answer without computing, for the length of a `with` block."""
    try:
        for module, answer in answers.items():
            module.forward = lambda *args, _answer=answer, **named: _answer()
        yield
    finally:
        for module in answers:
            vars(module).pop("forward", None)
