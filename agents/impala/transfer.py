"""From a configuration to its agent: IMPALA alone, or beside a frozen exploration policy."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.agents.impala.network import IMPALA
from rl_interp.agents.phases import explorer_config
from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.run import Run, load_into


def make_agent(config: IMPALAConfig) -> "IMPALA | Transfer":
    """The untrained agent of a configuration; with `explorer`, the explorer's sizes are those of its run."""
    task = _impala(config)
    if config.explorer is None:
        return task
    return Transfer(task, _impala(explorer_config(config, "impala")))


def load_explorer(agent: "Transfer", config: IMPALAConfig) -> None:
    """Put the pre-trained weights into a new transfer agent. Its checkpoints hold them from then on.

    Raises:
        RunError: the run is none of IMPALA's, or its actions or observations are others.
    """
    assert config.explorer is not None
    run = Run.open(config.explorer)
    load_into(agent.explorer, run.load_weights(), run.path)


class Transfer(Agent):
    """π = softmax(f_task + f_expl): a policy that learns, and one that stays as it is (Parisi et al. 2021, §3.2).

    Hook points of the task's network keep their names; those of the explorer begin with `explorer.`.
    """

    def __init__(self, task: IMPALA, explorer: IMPALA):
        super().__init__()
        self.task, self.explorer = task, explorer.requires_grad_(False)
        self.observation = task.observation
        nn.init.zeros_(task.policy.weight)
        nn.init.zeros_(task.policy.bias)
        self.hook_points = {
            prefix + name: replace(point, path=f"{part}.{point.path}", head=point.head and f"{part}.{point.head}")
            for part, prefix, network in (("task", "", task), ("explorer", "explorer.", explorer))
            for name, point in network.hook_points.items()
        }

    def initial_state(self, batch: int) -> State:
        return (*self.task.initial_state(batch), *self.explorer.initial_state(batch))

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        state = state or self.initial_state(obs.shape[1])
        leaves = len(self.task.initial_state(1))
        own = self.task.unroll(obs, state[:leaves], first)
        with torch.no_grad():
            theirs = self.explorer.unroll(obs, state[leaves:], first)
        assert own.logits is not None
        assert theirs.logits is not None
        return PolicyOutput((*own.state, *theirs.state), logits=own.logits + theirs.logits, value=own.value)


def _impala(config: IMPALAConfig) -> IMPALA:
    env = config.env
    return IMPALA(
        len(env.action_names),
        env.observation_shape,
        env.categories,
        tuple(config.channels),
        config.hidden,
        config.lstm,
    )
