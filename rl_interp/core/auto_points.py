"""Hook points of any agent, found by trying it: every value that its modules give for each observation of a batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.core.agent import Agent, HookPoint, Kind, evaluating
from rl_interp.core.check_agent import ContractError, taking
from rl_interp.core.parts import Path, leaves

_Versioned = tuple[Tensor, int | None]
_SIZES = (3, 5)
"""Two sizes of a batch: the axis that grows from one to the other counts the observations."""
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
"""What passes its input on in evaluation mode."""
_CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
_PARTS: dict[type[nn.Module], dict[Path, str]] = {
    nn.LSTM: {(0,): "output", (1, 0): "h", (1, 1): "c"},
    nn.GRU: {(0,): "output", (1,): "h"},
    nn.RNN: {(0,): "output", (1,): "h"},
    nn.LSTMCell: {(0,): "h", (1,): "c"},
    nn.MultiheadAttention: {(0,): "output", (1,): "weights"},
}
"""What the elements of PyTorch's modules are called."""


@dataclass(frozen=True)
class _Value:
    """A tensor that a module gave in a step."""

    module: nn.Module
    path: str
    call: int
    element: Path
    tensor: Tensor
    version: int | None


def auto_hook_points(agent: Agent, obs: Tensor) -> dict[str, HookPoint]:
    """The points that a step passes through, in the order in which they are computed.

    They are named by the paths of modules, without the `module.` of `wrap`. What an LSTM or GRU gives is named
    `lstm.output`, `lstm.h` and `lstm.c` (of several layers `h0`, `h1`, ...), attention's `attention.output` and
    `attention.weights`, elements of other modules `path.out0` or `path.KEY`, and calls of a module that is called
    several times in a step `path.call0`, `path.call1`. The point that the last linear layer turns into preferences
    names it as its `head`.

    Args:
        obs: the environment's observations `[B, ...]`.

    Raises:
        ContractError: the agent can't take the observations, or no module gives a tensor with a row for each of them.
    """
    if not isinstance(obs, Tensor) or not len(obs):
        raise ContractError(f"a {type(obs).__name__} given as observations; give a tensor [B, ...].")
    require_hookable(agent)
    few, heads = _values(agent, obs, _SIZES[0])
    many = {(value.path, value.call, value.element): value.tensor for value in _values(agent, obs, _SIZES[1])[0]}
    called_again = {value.path for value in few if value.call}
    conv1d: set[tuple[int, ...]] = set()
    points: dict[str, HookPoint] = {}
    for value in few:
        batch = _batch_axis(value.tensor, many.get((value.path, value.call, value.element)))
        if isinstance(value.module, nn.Conv1d):
            conv1d.add(value.tensor.shape)
        axes = None if batch is None else _axes(value, batch, value.tensor.shape in conv1d)
        if axes is not None:
            call = value.call if value.path in called_again else None
            head = next((path for path, (given, version) in heads.items() if value.tensor is given and
                         value.version is not None and value.version == version), None)  # fmt: skip
            for name, element in _named(value):
                where = [value.path.removeprefix("module."), None if call is None else f"call{call}", name]
                point = HookPoint(value.path, *axes, head=head, element=element or None, call=call)
                points.setdefault(".".join(filter(None, where)), point)
    if not points:
        raise ContractError(
            f"no submodule of {type(agent).__name__} gives floats with a row for each observation; name hook points by "
            "hand, or compute what you want to see in modules."
        )
    return points


def require_hookable(module: nn.Module) -> None:
    """Raise a `ContractError` where a part is TorchScript, which runs without hooks."""
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            name = path.removeprefix("module").strip(".")
            raise ContractError(
                f"{f'submodule {name!r}' if name else 'the module'} is TorchScript, in which nothing can be hooked; "
                "give the module that was scripted or traced, with its weights."
            )


@torch.no_grad()
def _values(agent: Agent, obs: Tensor, size: int) -> tuple[list[_Value], dict[str, _Versioned]]:
    """What modules give in a step on `size` observations; and the input of the linear layer that gives preferences, by
    its path."""
    found: list[_Value] = []
    inputs: dict[str, _Versioned] = {}
    outputs: dict[str, _Versioned] = {}
    paths = {module: path for path, module in agent.named_modules() if path}
    calls = dict.fromkeys(paths, 0)

    def note(module: nn.Module, args: Any, output: Any) -> None:
        call, path = calls[module], paths[module]
        calls[module] += 1
        own = {id(value.tensor) for value in found if value.path.startswith(f"{path}.")}
        for element, tensor in leaves(output):
            if id(tensor) not in own and not isinstance(module, _NOTHING):  # a container's is that of its last part
                found.append(_Value(module, path, call, element, tensor, _version(tensor)))
        if isinstance(module, nn.Linear) and args and isinstance(output, Tensor):
            inputs[path], outputs[path] = (args[0], _version(args[0])), (output, _version(output))

    rows = obs[torch.arange(size, device=obs.device) % len(obs)]
    handles = [module.register_forward_hook(note) for module in paths]
    try:
        with evaluating(agent), taking(rows):
            first = torch.ones(size, dtype=torch.bool, device=obs.device)
            preferences = agent.step(rows, agent.initial_state(size), first).preferences
    finally:
        for handle in handles:
            handle.remove()
    now = _version(preferences)
    unchanged = [path for path, (given, then) in outputs.items() if given is preferences and then == now is not None]
    return found, {path: inputs[path] for path in unchanged}


def _version(tensor: Tensor) -> int | None:
    """Of its memory; what is written into it later raises it. None in inference mode, which does not count."""
    return None if tensor.is_inference() else tensor._version


def _batch_axis(few: Tensor, many: Tensor | None) -> int | None:
    """The only axis in which both differ, if it counts the observations."""
    if many is None or few.dim() != many.dim() or not few.is_floating_point():
        return None
    different = [axis for axis, sizes in enumerate(zip(few.shape, many.shape, strict=True)) if sizes[0] != sizes[1]]
    counts = len(different) == 1 and (few.shape[different[0]], many.shape[different[0]]) == _SIZES
    return different[0] if counts else None


def _axes(value: _Value, batch: int, channels_first: bool) -> tuple[str, Kind] | None:
    """The axes of a value, and its kind; None of what no analysis takes."""
    dims, module = value.tensor.dim(), value.module
    if isinstance(module, _CELLS) or (isinstance(module, nn.RNNBase) and value.element != (0,)):
        return "T B D", "recurrent"
    if dims == 3 and batch == 1:
        return "T B D", "recurrent"
    if batch != 0:
        return None
    if isinstance(module, nn.RNNBase):
        return ("B T D", "recurrent") if dims == 3 else None
    if isinstance(module, nn.MultiheadAttention) and value.element == (1,):
        return ("B S K", "categorical") if dims == 3 else None
    if dims == 4:
        return None if isinstance(module, nn.Embedding) else ("B C H W", "spatial")
    axes = {2: "B D", 3: "B C S" if channels_first else "B S D"}.get(dims)
    return None if axes is None else (axes, "vector")


def _named(value: _Value) -> Iterator[tuple[str, Path]]:
    """The name of a value beside its module's path, and its element; several of the state of several layers."""
    known = next((names for kind, names in _PARTS.items() if isinstance(value.module, kind)), {})
    name = known.get(value.element) or ".".join(f"out{key}" if isinstance(key, int) else key for key in value.element)
    if isinstance(value.module, nn.RNNBase) and value.element != (0,):
        layers = len(value.tensor)
        for layer in range(layers):
            yield name if layers == 1 else f"{name}{layer}", (*value.element, layer)
    else:
        yield name, value.element
