"""Running an agent again from a hook point on: many edits of one layer cost only the layers after it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State, evaluating, tree_leaves, tree_map
from rl_interp.core.check_agent import alike, largest_difference
from rl_interp.core.errors import HookError
from rl_interp.core.gradients import through_numpy
from rl_interp.core.hooks import hook_point


class PartialForward:
    """What an agent returns for observations, again and again, with different values at one hook point.

    What was finished when the point's value was there is not computed again: modules that are called once answer with
    what they gave the first time. Of these, only those that something after the point reads, such as the other arm of a
    residual sum, are copied for each run. What looks at the observations after the point, such as a value that has a
    network of its own, is computed each time.

    Args:
        obs: `[N, ...]`.
        at: name of the hook point, or one that the agent does not name.
        state: the agent's before each observation, leaves `[N, ...]`; by default each is seen as an episode's first.

    Raises:
        HookError: no such hook point, or one whose value is not there exactly once in a step, or is only part of what a
            module gives; or an agent that gives different preferences when it is run again, such as one that writes
            into its input.
    """

    def __init__(self, agent: Agent, obs: Tensor, at: str | HookPoint, state: State = None):
        self.agent, self.obs = agent, obs
        self.state = agent.initial_state(len(obs)) if state is None or state == () else state
        self._point = point = hook_point(agent, at) if isinstance(at, str) else at
        at = at if isinstance(at, str) else at.path
        if point.element is not None or point.call is not None:
            raise HookError(f"{at!r} can't be run again from: it must be all that a module gives once in a step.")
        self._target = agent.get_submodule(point.path)
        seen = obs.clone()
        with torch.no_grad():
            plain, finished = self._finished(at)
        if not torch.isclose(obs, seen, rtol=0, atol=0, equal_nan=True).all():
            obs.copy_(seen)
            raise HookError(f"{at!r} can't be run again from: the agent writes into its observations.")
        if any(given.is_inference() for given in finished.values()) and not torch.is_inference_mode_enabled():
            raise HookError(
                f"{at!r} can't be run again from: the agent computes it in torch.inference_mode(), which leaves no "
                "gradients to follow; use torch.no_grad() there."
            )
        self.values = finished.pop(self._target)
        """`[N, ...]`: the values at the point, to be edited."""
        own = self.values.detach().requires_grad_(self.values.is_floating_point())
        leaves = {m: given.detach().requires_grad_() for m, given in finished.items() if given.is_floating_point()}
        answers = {m: given.clone for m, given in leaves.items()}  # what answers is never the tensor that is kept
        with torch.enable_grad(), evaluating(agent), answering({**answers, self._target: self._answer(own)}):
            read = _read(lambda: agent.step(obs, self.state), leaves)
        read |= finished.keys() - leaves.keys()
        changed = None
        # Operations in place need memory of their own to write into, a choice may read what no derivative reaches, and
        # what comes after the point may look at the observations anew, as a value's network of its own does.
        attempts = ((False, False, read), (False, True, read), (False, True, finished.keys()))
        attempts += tuple((True, writable, kept) for _, writable, kept in attempts)
        for self._looks, self._writable, kept in attempts:
            self._given: dict[nn.Module, tuple[Tensor, bool]] = {
                module: (given, True) if module in kept else (given[:1].clone(), False)
                for module, given in finished.items()
            }
            self._asked = False
            changed = self._changed(plain)
            if not changed and not self._asked:
                changed = "the code that runs does not pass through it"
            if not changed:
                return
        raise HookError(
            f"{at!r} can't be run again from: with its own value there {changed}; "
            "modules before it may not write into their inputs, keep a state or draw random numbers."
        )

    def _changed(self, plain: PolicyOutput) -> str | None:
        """How the observations, run again with their own values, give something else than they gave; None if not. In
        another order and number, so that what can't be told apart by observations shows."""
        rows = torch.arange(-1, len(self.values), device=self.values.device).flip(0).clamp(min=0)
        try:
            again = self(self.values[rows], rows)
        except (RuntimeError, IndexError, ValueError) as error:  # such as an index made of what is not kept
            return f"it ends in an error ({str(error).splitlines()[0]})"
        for what, got, want in (
            ("preferences", again.preferences, plain.preferences), ("values", again.value, plain.value),
        ):  # fmt: skip
            if got is not None and want is not None and not alike(got, want[rows]):
                return f"the {what} differ by {largest_difference(got, want[rows]):.3g}"
        return None

    def _finished(self, at: str) -> tuple[PolicyOutput, dict[nn.Module, Tensor]]:
        """A plain step, and modules called once, whose output was there when the point's value was, with it, and the
        point's own value."""
        calls: dict[nn.Module, int] = {}
        outputs: dict[nn.Module, Any] = {}

        def note(module: nn.Module, args: Any, output: Any) -> None:
            calls[module] = calls.get(module, 0) + 1
            value = args[0] if module is self._target and self._point.side == "input" and args else output
            if calls.get(self._target, 0) == (module is self._target):
                outputs[module] = value.clone() if isinstance(value, Tensor) else value  # before it is written into

        handles = [module.register_forward_hook(note) for module in self.agent.modules() if module is not self.agent]
        try:
            with evaluating(self.agent):
                out = self.agent.step(self.obs, self.state)
        finally:
            for handle in handles:
                handle.remove()
        if calls.get(self._target, 0) != 1:
            count = calls.get(self._target, 0)
            raise HookError(f"{at!r} is computed {count} times in a step; it can't be run again from.")
        value, axes = outputs[self._target], self._point.axes.split()
        if not isinstance(value, Tensor) or (self._point.kind == "recurrent" and value.dim() == len(axes)):
            raise HookError(f"{at!r} can't be run again from: it must be all that a module gives once in a step.")
        once = {module: given for module, given in outputs.items() if calls[module] == 1 and isinstance(given, Tensor)}
        return out, once

    def __call__(self, values: Tensor, rows: Tensor | None = None) -> PolicyOutput:
        """What the agent returns with `values [P, ...]` at the point, each on one of the observations, `rows [P]` (by
        default the P-th). Gradients reach `values` where they require some. Raises `NoGradientError` where they do and
        the agent makes NumPy arrays of what follows."""
        count = len(values)
        rows = torch.arange(count, device=values.device) if rows is None else rows

        def answer(given: Tensor, read: bool) -> Callable[[], Tensor]:
            if read:
                # One row for many observations is the same for all, such as what lies around a board.
                return lambda: given if len(given) == 1 < len(self.obs) else given[rows]
            # What is not read is NaN, so that it shows if it is; one number for all, as to fill memory takes its time.
            unread = given.new_full((), torch.nan).expand(count, *given.shape[1:])
            return unread.clone if self._writable else lambda: unread

        answers = {module: answer(*each) for module, each in self._given.items()}
        obs = self.obs[rows.to(self.obs.device)] if self._looks else self.obs[:1].expand(count, *self.obs.shape[1:])
        state = tree_map(lambda leaf: leaf[rows], self.state)
        with (
            torch.set_grad_enabled(values.requires_grad and torch.is_grad_enabled()),
            evaluating(self.agent),
            answering({**answers, self._target: self._answer(values)}),
            through_numpy(),
        ):
            return self.agent.step(obs, state)

    def _answer(self, values: Tensor) -> Callable[[], Any]:
        """What the point's module gives where `values` are the point's own."""
        compute = self._target.forward if self._point.side == "input" else lambda given: given
        dtype = self.values.dtype

        def answer() -> Any:
            self._asked = True
            return compute(values.to(dtype, copy=True))

        return answer


def _read(step: Callable[[], PolicyOutput], leaves: Mapping[nn.Module, Tensor]) -> set[nn.Module]:
    """The modules whose output an agent's own depends on; all of them where that can't be told."""
    try:
        sums = [end.float().sum() for end in tree_leaves(step()) if end.requires_grad]
        if not sums:
            return set(leaves)
        gradients = torch.autograd.grad(torch.stack(sums).sum(), list(leaves.values()), allow_unused=True)
    except RuntimeError:  # an operation in place took what a derivative needs, or arrays are made of tensors
        return set(leaves)
    return {module for module, gradient in zip(leaves, gradients, strict=True) if gradient is not None}


@contextmanager
def answering(answers: Mapping[nn.Module, Callable[[], Any]]) -> Iterator[None]:
    """Modules that answer without computing, for the length of a `with` block. A hook that does nothing is on each, as
    some modules, such as an LSTM's gates, are only called where somebody watches."""
    handles = []
    try:
        for module, answer in answers.items():
            module.forward = lambda *args, _answer=answer, **named: _answer()
            handles.append(module.register_forward_hook(lambda module, args, output: None))
        yield
    finally:
        for module in answers:
            vars(module).pop("forward", None)
        for handle in handles:
            handle.remove()
