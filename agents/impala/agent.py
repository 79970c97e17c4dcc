"""The IMPALA agent: a torso, perhaps an LSTM, a policy and a value; alone, or beside a frozen exploration policy.

Espeholt et al. 2018, arXiv 1802.01561, figure 3 (right): the deep residual network. The agent is given the observation
and nothing else: the paper's last reward and last action are left out, so that a state is what is seen.
"""

from functools import partial

import torch
from torch import Tensor, nn

from rl_interp.agents.encoders import CHANNELS, encoder, observation_kind, resnet
from rl_interp.agents.impala.config import IMPALAConfig
from rl_interp.agents.impala.drc import DRC
from rl_interp.agents.impala.network import (
    HookedLSTM,
    LSTMState,
    lstm_hook_points,
    once_each,
    policy_and_value,
    watched,
)
from rl_interp.agents.impala.self_ablation import SelfAblation
from rl_interp.agents.phases import Transfer, explorer_config
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.run import Run, load_into


class IMPALA(Agent):
    """Logits `[T, B, A]` and values `[T, B]` from observations `[T, B, ...]`: uint8 `[C, H, W]`, or float32 `[D]`.

    Args:
        shape: of an observation, `(C, H, W)` of pixels and symbols, `(D,)` of vectors.
        categories: how many each channel has, where bytes are categories: for a smaller network on embedded cells.
            None where they are intensities: for the deep ResNet.
        channels: of the ResNet's sections.
        cell: for a ResNet whose positions are the cells of a grid; see `encoders.resnet`.
        hidden: width of the fully connected layer, and of the one before it for vectors.
        lstm: width of the LSTM; 0 for an agent without memory.
        self_ablation: units of each layer that its ablated stream keeps; 0 for an agent without one.
    """

    def __init__(
        self,
        num_actions: int,
        shape: tuple[int, ...],
        categories: tuple[int, ...] | None = None,
        channels: tuple[int, ...] = CHANNELS,
        hidden: int = 256,
        lstm: int = 256,
        self_ablation: int = 0,
        cell: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.observation = observation_kind(shape, categories)
        self.torso = encoder(shape, categories, partial(resnet, channels=channels, cell=cell), hidden)
        self.fc, self.relu = nn.Linear(self.torso.width, hidden), nn.ReLU()
        self.lstm = HookedLSTM(hidden, lstm) if lstm else None
        self.policy, self.baseline = nn.Linear(lstm or hidden, num_actions), nn.Linear(lstm or hidden, 1)
        self.hook_points = {
            **self.torso.points("torso."),
            "fc.pre": HookPoint("fc", "B D"),
            "fc.post": HookPoint("relu", "B D", head=None if lstm else "policy"),
            **(lstm_hook_points("lstm", head="policy") if lstm else {}),
            "policy": HookPoint("policy", "B D"),
            "value": HookPoint("baseline", "B D"),
        }
        self.self_ablation = SelfAblation(self, self.hook_points, self_ablation) if self_ablation else None
        if self.self_ablation is not None:
            self.hook_points |= self.self_ablation.points("self_ablation")

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
        flat = obs.flatten(0, 1)
        features = once_each(self.see, flat) if self._sees_again(time) else self.see(flat)
        return self.decide(features.unflatten(0, (time, batch)), state, first)

    def see(self, obs: Tensor) -> Tensor:
        """`fc.post [N, D]` of observations `[N, ...]`, the part that depends on nothing before them."""
        return self.relu(self.fc(self.torso(obs).flatten(1)))

    def decide(self, features: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        """The rest of `unroll`, from features `[T, B, D]`."""
        new: State = ()
        if self.lstm is not None:
            given: LSTMState = state or self.initial_state(features.shape[1])
            features, new = self.lstm(features, given, first)
        logits, values = policy_and_value(self.policy, self.baseline, features.flatten(0, 1))
        return PolicyOutput(new, logits=logits.unflatten(0, features.shape[:2]), value=values.view(features.shape[:2]))

    def _sees_again(self, time: int) -> bool:
        """Whether to look for observations that come again: while it learns, in a world of symbols, where three in four
        do within an unroll; and not where a hook wants to see each."""
        again = self.training and self.observation == "symbols" and time > 1
        return again and not watched(self.torso, self.fc, self.relu)


def make_agent(config: IMPALAConfig) -> IMPALA | DRC | Transfer[IMPALA | DRC]:
    """The untrained agent of a configuration; an explorer has the sizes of its own run."""
    task = _network(config)
    if config.explorer is None:
        return task
    return Transfer(task, _network(explorer_config(config, "impala")), task.policy)


def load_start(agent: Agent, config: IMPALAConfig) -> None:
    """Put the weights of the run that `config.start` names into a new agent.

    Raises:
        RunError: there is no such run, or its weights do not fit.
    """
    if config.start is not None:
        run = Run.open(config.start)
        load_into(agent, run.load_weights(), run.path)


def _network(config: IMPALAConfig) -> IMPALA | DRC:
    env = config.env
    given = len(env.action_names), env.observation_shape, env.categories
    if config.network == "drc":
        return DRC(*given, config.layers, config.ticks, config.channels[0], config.hidden)
    cell = env.cell_pixels if config.cells else None
    return IMPALA(*given, tuple(config.channels), config.hidden, config.lstm, config.self_ablation, cell)
