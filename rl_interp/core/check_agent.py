"""The agent contract, as a test that you can run on your own agent."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, evaluating, tree_leaves
from rl_interp.core.errors import UserError
from rl_interp.core.hooks import Cache, assert_unhooked, run_with_hooks
from rl_interp.core.read import first_line

ADVICE = (
    "scale observations by a constant, whatever their dtype, as in obs.float() / 255, or let `wrap(forward=...)` "
    "convert them so."
)
"""What to do about an agent that treats floats differently from the same values as bytes."""


class ContractError(UserError):
    """An agent that breaks the contract; the message says where."""


def alike(got: Tensor, want: Tensor) -> bool:
    """Whether preferences are the same but for rounding, where they are computed and in their type."""
    allowed = rounding(want.dtype, want.device)
    finite = want[want.isfinite()].abs()  # -inf rules actions out
    scale = max(0.1, float(finite.max()) if len(finite) else 0.0)
    return torch.allclose(got.to(want.dtype), want, rtol=allowed, atol=allowed * scale)


def rounding(dtype: torch.dtype, device: torch.device) -> float:
    """Relative difference that a different order or layout of the same computation can make.

    NVIDIA's convolutions, and where asked for its matrix products, take float32 with TF32's 10 bits of mantissa (by
    default; which ones depends on the layout). That figure is NVIDIA's; it is untested on GPU.
    """
    tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    coarse = device.type == "cuda" and dtype == torch.float32 and tf32
    return max(1e-4, 4 * (2.0**-10 if coarse else torch.finfo(dtype).eps))


def largest_difference(got: Tensor, want: Tensor) -> float:
    """The largest absolute difference of preferences; equal ones, also where both are -inf, count as 0."""
    return float((got - want)[got != want].abs().max()) if (got != want).any() else 0.0


@contextmanager
def taking(obs: Tensor) -> Iterator[None]:
    """For blocks that feed observations: the agent's errors become a `ContractError` that says which they were."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever the agent's own code raises
        convert = "module(obs.to(dtype) / 255)" if obs.dtype == torch.uint8 else "module(obs.to(dtype))"
        raise ContractError(
            f"the agent can't take observations {describe(obs)} ({type(error).__name__}: {first_line(error)}); convert "
            f"them as it needs, as in wrap(forward=lambda module, obs: {convert}) with the dtype of its weights."
        ) from error


def describe(value: Tensor) -> str:
    """Type and shape, for a message."""
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


@contextmanager
def taking_floats() -> Iterator[None]:
    """For blocks that feed floats in place of bytes: the agent's errors become a `ContractError` that says so."""
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ContractError(
            f"step takes bytes but not the same values as floats ({why}); convert any dtype, as in obs.float() / 255, "
            'or say that bytes are categories: observation="symbols".'
        ) from None


@torch.no_grad()
def check_agent(agent: Agent, obs: Tensor) -> None:
    """Check an agent on a batch of the environment's observations `[B, ...]`, B at least 2.

    That it decides, and the same again when it is asked again, that `step` and `unroll` agree, that every hook point
    fires with the axes it declares, that a point's head makes the preferences of its value, that a hook which changes
    nothing changes nothing, that hooks are gone afterwards, that batch elements do not influence one another, that
    `first` resets a recurrent agent's state, that bytes and the same values as floats lead to the same preferences, and
    that the agent writes neither into what it is given nor into what it returned before.

    Raises:
        ContractError: in one sentence, what was found and what was wanted.
    """
    if isinstance(obs, Mapping | tuple | list):
        raise ContractError(
            f"check_agent was given a {type(obs).__name__} of observations; environments here give one tensor [B, ...] "
            "(a dict's entries side by side), which `wrap(forward=...)` can take apart."
        )
    if not isinstance(obs, Tensor) or len(obs) < 2:
        given = f"{len(obs)} observations" if isinstance(obs, Tensor) else f"a {type(obs).__name__}"
        raise ContractError(f"check_agent was given {given}; give a tensor [B, ...] of at least 2 observations.")
    with evaluating(agent):
        batch = len(obs)
        first = torch.zeros(batch, dtype=torch.bool, device=obs.device)
        _check_device(agent, obs)
        with taking(obs):
            out = agent.step(obs.clone(), agent.initial_state(batch), first)
        _check_output(agent, out, batch)
        _check_repeated(agent, obs, first, out)
        _check_memory(agent, obs, first)
        _check_unroll(agent, obs, first)
        _check_hook_points(agent, obs, first, out)
        _check_independence(agent, obs, first, out)
        _check_floats(agent, obs, first, out)
        _check_reset(agent, obs, out)
        assert_unhooked(agent)


def _check_device(agent: Agent, obs: Tensor) -> None:
    places = {agent.device} | {leaf.device for leaf in tree_leaves(agent.initial_state(1))}
    if places != {obs.device}:
        raise ContractError(
            f"the observations are on {obs.device}, the agent and its initial_state on {', '.join(map(str, places))}; "
            "put all on one device: initial_state makes tensors where the agent's weights are."
        )


def _check_output(agent: Agent, out: PolicyOutput, batch: int) -> None:
    if not isinstance(out, PolicyOutput):
        raise ContractError(f"step returned a {type(out).__name__}; it must return a PolicyOutput.")
    if out.preferences.dim() != 2 or len(out.preferences) != batch:
        raise ContractError(
            f"step returned preferences {tuple(out.preferences.shape)} for {batch} observations; want [B, A]."
        )
    discrete = out.logits is not None or out.q_values is not None
    finite = (out.preferences.amax(-1) if discrete else out.preferences).isfinite()
    if not finite.all():  # -inf may rule discrete actions out
        raise ContractError("step returned preferences that are NaN or infinite; look at the weights and inputs.")
    if out.kind != agent.preference_kind:
        raise ContractError(
            f"step returned {out.kind}, and the agent's preference_kind is {agent.preference_kind!r}; set it to "
            f"{out.kind!r} (with `wrap`, give output)."
        )
    if out.value is not None and out.value.shape != (batch,):
        raise ContractError(f"step returned a value {tuple(out.value.shape)} for {batch} observations; want [B].")
    if out.std is not None and (out.mean is None or out.std.shape != out.mean.shape or not (out.std >= 0).all()):
        raise ContractError(
            f"step returned a std {tuple(out.std.shape)} beside the mean of continuous actions; it must have the shape "
            "of the mean and be at least 0."
        )


def _check_repeated(agent: Agent, obs: Tensor, first: Tensor, out: PolicyOutput) -> None:
    again = agent.step(obs.clone(), agent.initial_state(len(obs)), first)
    if not alike(again.preferences, out.preferences):
        raise ContractError(
            "the same observations led to other preferences the second time "
            f"(largest difference {largest_difference(again.preferences, out.preferences):.3g}): return the policy, "
            "not a sample of it, and switch dropout off in evaluation mode, as in F.dropout(x, training=self.training)."
        )


def _check_memory(agent: Agent, obs: Tensor, first: Tensor) -> None:
    """That a step changes neither its inputs nor what the step before it returned."""
    given, state = obs.clone(), agent.initial_state(len(obs))
    kept = [leaf.clone() for leaf in tree_leaves(state)]
    before = agent.step(given, state, first)
    if not given.equal(obs):
        raise ContractError("step wrote into the observations it was given; let it work on a copy (no obs.sub_(...)).")
    if not all(leaf.equal(copy) for leaf, copy in zip(tree_leaves(state), kept, strict=True)):
        raise ContractError("step wrote into the state it was given; let it return a new one.")
    returned = [leaf.clone() for leaf in tree_leaves(before)]
    agent.step(obs.flip(0), before.state, first)
    if not all(leaf.equal(copy) for leaf, copy in zip(tree_leaves(before), returned, strict=True)):
        raise ContractError("a step wrote into what the step before it had returned; let it return tensors of its own.")


def _check_unroll(agent: Agent, obs: Tensor, first: Tensor) -> None:
    """That `unroll` agrees with two steps."""
    segment, state, stepped = torch.stack([obs, obs.flip(0)]), agent.initial_state(len(obs)), []
    actions = torch.zeros(2, len(obs), dtype=torch.long, device=obs.device)
    for now, taken in zip(segment, actions, strict=True):
        out = agent.step(now, state, first)
        stepped.append(out.preferences)
        state = agent.after_action(out.state, taken)
    unrolled = agent.unroll(segment, agent.initial_state(len(obs)), first.expand(2, -1), actions).preferences
    if unrolled.shape != (2, *stepped[0].shape):
        raise ContractError(f"unroll returned preferences {tuple(unrolled.shape)} for two steps; want [T, B, A].")
    _same("unroll over two steps", unrolled, torch.stack(stepped))


def _check_hook_points(agent: Agent, obs: Tensor, first: Tensor, out: PolicyOutput) -> None:
    if not agent.hook_points:
        raise ContractError(f"{type(agent).__name__} has no hook points; name at least one.")
    state = agent.initial_state(len(obs))
    for name, point in agent.hook_points.items():
        cache = Cache()
        identity = {name: (lambda value, site: value.clone(), cache.record)}
        hooked_out = run_with_hooks(agent, obs, state, hooks=identity, first=first)
        _same(f"a hook at {name!r} that changes nothing", hooked_out.preferences, out.preferences)
        for phase in cache.phases(name):
            _check_axes(name, point, cache[name, phase], len(obs))
            if point.head is not None:
                _check_head(agent, name, point, cache[name, phase], out.preferences)


def _check_axes(name: str, point: HookPoint, value: Tensor, batch: int) -> None:
    shape, axes = value.shape, sorted(point.axes.split(), key=lambda axis: axis != "T")  # caches have T first
    if len(shape) != len(axes):
        raise ContractError(f"hook point {name!r} declares axes {point.axes!r} but its value is {tuple(shape)}.")
    if "B" in axes and shape[axes.index("B")] != batch:
        raise ContractError(
            f"hook point {name!r} declares axes {point.axes!r} but its value is {tuple(shape)} for {batch} "
            "observations."
        )


def _check_head(agent: Agent, name: str, point: HookPoint, value: Tensor, preferences: Tensor) -> None:
    """That the head alone turns the value into the preferences."""
    head = dict(agent.named_modules(remove_duplicate=False)).get(point.head or "")
    if head is None:
        raise ContractError(f"hook point {name!r} names the head {point.head!r}, which is no submodule of the agent.")
    newest = point.newest(value)
    made = head(newest.to(next(head.parameters(), newest).dtype))
    if made.shape != preferences.shape or not alike(made, preferences):
        raise ContractError(
            f"hook point {name!r} names the head {point.head!r}, which makes other preferences of its value than a "
            "step returns; return what the head gives, with nothing written into it, or name no head."
        )


def _check_independence(agent: Agent, obs: Tensor, first: Tensor, out: PolicyOutput) -> None:
    alone = agent.step(obs[:1], agent.initial_state(1), first[:1]).preferences
    _same("a batch of one", alone, out.preferences[:1])


def _check_floats(agent: Agent, obs: Tensor, first: Tensor, out: PolicyOutput) -> None:
    """Saliency maps blur pixels and follow their gradients, which bytes can't hold."""
    if agent.observation != "pixels" or obs.dtype != torch.uint8:
        return
    with taking_floats():
        floats = agent.step(obs.float(), agent.initial_state(len(obs)), first)
    if not alike(floats.preferences, out.preferences):
        raise ContractError(f"observations as floats led to other preferences than the same bytes: {ADVICE}")


def _check_reset(agent: Agent, obs: Tensor, out: PolicyOutput) -> None:
    if agent.initial_state(1) == ():
        return
    reset = agent.step(obs, out.state, torch.ones(len(obs), dtype=torch.bool, device=obs.device))
    fresh = agent.step(obs, agent.initial_state(len(obs)), torch.ones(len(obs), dtype=torch.bool, device=obs.device))
    _same("`first` on a used state", reset.preferences, fresh.preferences)
    shapes = [leaf.shape for leaf in tree_leaves(out.state)]
    if any(shape[0] != len(obs) for shape in shapes):
        raise ContractError(f"the state's leaves are {[tuple(s) for s in shapes]}; each must lead with B = {len(obs)}.")


def _same(what: str, got: Tensor, want: Tensor) -> None:
    if not alike(got, want):
        gap = largest_difference(got, want)
        raise ContractError(f"{what} gave other preferences than a plain step (largest difference {gap:.3g}).")
