"""The IMPALA agent: a torso, perhaps an LSTM, a policy and a value; alone, or beside a frozen exploration policy.

Espeholt et al. 2018, arXiv 1802.01561, figure 3 (right): the deep residual network. The agent is given the observation
and nothing else: the paper's last reward and last action are left out, so that a state is what is seen.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.agents.impala.network import HookedLSTM, LSTMState, ResNet, SymbolNet, lstm_hook_points
from rl_interp.agents.phases import explorer_config
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State


class IMPALA(Agent):
    """Logits `[T, B, A]` and values `[T, B]` from uint8 observations `[T, B, 3, H, W]`.

    Args:
        shape: of an observation, `(C, H, W)`.
        categories: how many each channel has, where bytes are categories: for a smaller network on embedded cells.
            None where they are intensities: for the deep ResNet.
        channels: of the ResNet's sections.
        hidden: width of the fully connected layer.
        lstm: width of the LSTM; 0 for an agent without memory.
    """

    def __init__(
        self,
        num_actions: int,
        shape: tuple[int, ...],
        categories: tuple[int, ...] | None = None,
        channels: tuple[int, ...] = (16, 32, 32),
        hidden: int = 256,
        lstm: int = 256,
    ):
        super().__init__()
        self.observation = "pixels" if categories is None else "symbols"
        self.torso = ResNet(shape, channels) if categories is None else SymbolNet(categories)
        self.fc, self.relu = nn.Linear(self.torso.features(shape), hidden), nn.ReLU()
        self.lstm = HookedLSTM(hidden, lstm) if lstm else None
        self.policy, self.baseline = nn.Linear(lstm or hidden, num_actions), nn.Linear(lstm or hidden, 1)
        self.hook_points = {
            **{name: HookPoint(f"torso.{point.path}", point.axes, point.kind) for name, point in self.torso.points},
            "fc.pre": HookPoint("fc", "B D"),
            "fc.post": HookPoint("relu", "B D", head=None if lstm else "policy"),
            **(lstm_hook_points("lstm", head="policy") if lstm else {}),
            "policy": HookPoint("policy", "B D"),
            "value": HookPoint("baseline", "B D"),
        }

    def initial_state(self, batch: int) -> State:
        if self.lstm is None:
            return ()
        zeros = torch.zeros(batch, self.lstm.width, device=self.policy.weight.device)
        return (zeros, zeros.clone())

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        time, batch = obs.shape[:2]
        # Torso and fully connected layer see each observation alone, so time and batch are one axis to them.
        flat = self.relu(self.fc(self.torso(obs.flatten(0, 1)).flatten(1)))
        new: State = ()
        if self.lstm is not None:
            given: LSTMState = state or self.initial_state(batch)
            h, new = self.lstm(flat.unflatten(0, (time, batch)), given, first)
            flat = h.flatten(0, 1)
        logits, values = self.policy(flat).float(), self.baseline(flat).float()
        return PolicyOutput(new, logits=logits.unflatten(0, (time, batch)), value=values.view(time, batch))


class Transfer(Agent):
    """π = softmax(f_task + f_expl): a policy that learns, and one that stays as it is (Parisi et al. 2021, §3.2).

    Hook points of the task's network keep their names; those of the explorer begin with `explorer.`.
    """

    def __init__(self, task: IMPALA, explorer: IMPALA):
        super().__init__()
        self.task, self.explorer = task, explorer.requires_grad_(False)
        self.observation = task.observation
        # Logits of 0, so that training starts as the explorer plays.
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
        leaves = len(self.task.initial_state(1))  # the task's come first
        own = self.task.unroll(obs, state[:leaves], first)
        with torch.no_grad():
            theirs = self.explorer.unroll(obs, state[leaves:], first)
        assert own.logits is not None
        assert theirs.logits is not None
        return PolicyOutput((*own.state, *theirs.state), logits=own.logits + theirs.logits, value=own.value)


def make_agent(config: IMPALAConfig) -> IMPALA | Transfer:
    """The untrained agent of a configuration; an explorer has the sizes of its own run."""
    task = _impala(config)
    if config.explorer is None:
        return task
    return Transfer(task, _impala(explorer_config(config, "impala")))


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
