"""Pretrained maze policies, as train-procgen-pytorch saves them: those of Langosco et al. 2022, "Goal Misgeneralization
in Deep Reinforcement Learning" (arXiv 2105.14111), which Turner et al. 2023 (arXiv 2310.08043) took apart.

The network is this package's IMPALA with sections of 64, 128 and 128 channels, `hidden` 256 and no LSTM, under
different names: there too pixels are divided by 255, residual blocks are the same, and the last section's output is
flattened channels first.
"""

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rl_interp.agents.impala.agent import IMPALA
from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.core.agent import HookPoint, PolicyOutput, State
from rl_interp.core.envs import MazeConfig
from rl_interp.core.errors import RunError
from rl_interp.core.weights import Held, read_state, with_weights

KIND = "impala-procgen"
"""The kind of runs that hold such an agent."""
REMEDY = "give the .pth file that train-procgen-pytorch saved"
_WEIGHTS = ("model_state_dict", "state_dict")
COMBINATIONS = 15
"""How many actions Procgen has: combinations of keys."""
MOVES = ((5,), (3,), (0, 1, 2), (6, 7, 8), (4, 9, 10, 11, 12, 13, 14))
"""The actions that lead up, down, left and right in Procgen's mazes, and those that lead nowhere. The game drops the
vertical part of a diagonal (`set_action_xy` in procgen/src/games/maze.cpp); special keys do nothing there."""
_NAMES = {
    r"embedder\.block([123])\.conv": r"torso.sections.{section}.conv",
    r"embedder\.block([123])\.(res[12]\.conv[12])": r"torso.sections.{section}.\2",
    r"embedder\.fc": "fc",
    "fc_policy": "policy",
    "fc_value": "baseline",
}


class ProcgenMaze(IMPALA):
    """IMPALA over Procgen's 15 actions, seen as choosing among a maze's five moves.

    P(move) is the sum of its actions' probabilities: the move's logit is the logsumexp of theirs. The hook point
    `policy` has all 15.
    """

    def __init__(self, config: IMPALAConfig):
        super().__init__(
            COMBINATIONS, config.env.observation_shape, channels=tuple(config.channels), hidden=config.hidden, lstm=0
        )
        self.hook_points = {**self.hook_points, "fc.post": HookPoint("relu", "B D")}  # what follows is not linear

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        out = super().unroll(obs, state, first, actions)
        assert out.logits is not None
        logits = torch.stack([out.logits[..., list(keys)].logsumexp(-1) for keys in MOVES], -1)
        return PolicyOutput(out.state, logits=logits, value=out.value)


def make_agent(config: IMPALAConfig) -> ProcgenMaze:
    """The agent of a configuration, before it gets its weights."""
    return ProcgenMaze(config)


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """A checkpoint's weights by the names they were saved under. No code in the file is run.

    The trainer of Lee (joonleesky/train-procgen-pytorch) saves them as `state_dict`, that of Langosco et al. as
    `model_state_dict` beside the optimiser's; some are shared bare. Weights of a policy that was trained on several
    devices, with `module.` before each name, and files of PyTorch before 1.6 are read as well.

    Raises:
        RunError: the file is not a checkpoint, holds anything but tensors and plain containers, or has no weights.
    """
    data = read_state(path, REMEDY)
    found = [data[key] for key in _WEIGHTS if key in data] if isinstance(data, dict) else []
    weights = found[0] if found else data
    if not (isinstance(weights, dict) and weights and all(isinstance(each, Tensor) for each in weights.values())):
        raise RunError(f"{path} holds no weights under {' or '.join(_WEIGHTS)}; {REMEDY}.")
    names = [str(name) for name in weights]
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    return {name.removeprefix(prefix): weight for name, weight in zip(names, weights.values(), strict=True)}


def agent_of(weights: Mapping[str, Tensor], region: int, source: Path | str) -> tuple[IMPALAConfig, ProcgenMaze]:
    """The configuration and the agent of a checkpoint's weights; its widths are those of the weights.

    Args:
        region: of the cheese in its training, as in `MazeConfig`.
        source: named in errors.

    Raises:
        RunError: the weights have names or shapes that the pretrained policies do not have.
    """
    renamed = {}
    for name, value in weights.items():
        ours = _our_name(name)
        if ours is None:
            raise RunError(
                f"{source} holds {reprlib.repr(name)}, which the maze policies without a memory do not have."
            )
        renamed[ours] = value
    widths = {}
    for name in (*(f"embedder.block{i}.conv.weight" for i in (1, 2, 3)), "embedder.fc.weight", "fc_policy.weight"):
        if name not in weights:
            raise RunError(f"{name!r} is missing in {source}, which the maze policies have.")
        if not weights[name].ndim:
            raise RunError(f"{name!r} of {source} is a single number; {REMEDY}.")
        widths[name] = len(weights[name])
    *channels, hidden, actions = widths.values()
    if actions != COMBINATIONS:
        raise RunError(f"{source} is of an agent with {actions} actions; Procgen has {COMBINATIONS}.")
    if 0 in widths.values():
        raise RunError(f"{source} has layers without width; {REMEDY}.")
    config = IMPALAConfig(env=MazeConfig(region=region), channels=tuple(channels), hidden=hidden, lstm=0)
    agent = with_weights(lambda: ProcgenMaze(config), Held(renamed, source), source)
    return config, agent.eval()


def _our_name(name: str) -> str | None:
    """What a weight or bias is called here; None where there is no such thing."""
    layer, _, kind = name.rpartition(".")
    for theirs, ours in _NAMES.items():
        if (match := re.fullmatch(theirs, layer)) and kind in ("weight", "bias"):
            section = int(match[1]) - 1 if match.groups() else 0
            return f"{match.expand(ours.format(section=section))}.{kind}"
    return None
