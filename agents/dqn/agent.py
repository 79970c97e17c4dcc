"""The DQN agent: an encoder of the observation, a hidden layer, and a Q-value for each action.

Of Atari's frames the encoder is the Nature CNN; with nine actions the agent then has 867,465 parameters.
"""

from torch import Tensor, nn

from rl_interp.agents.dqn.config import DQNConfig
from rl_interp.agents.encoders import NATURE_SIDE, Encoder, encoder, in_float32, nature_cnn, observation_kind, resnet
from rl_interp.agents.phases import Transfer, explorer_config
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State
from rl_interp.core.errors import UserError


class DQN(Agent):
    """Q-values `[B, A]` from observations `[B, ...]`: uint8 `[C, H, W]`, or float32 `[D]`.

    Float pixels on the same 0-255 scale are taken too, so that gradients reach them. The layers of the encoder are
    the agent's own, in order, and the rest follows.

    Args:
        shape: of an observation, `(C, H, W)` of pixels and symbols, `(D,)` of vectors.
        categories: how many each channel has, where bytes are categories; None where they are intensities.
        hidden: width of the hidden layer, and of the one before it for vectors.
    """

    preference_kind = "q_values"

    def __init__(
        self,
        num_actions: int,
        shape: tuple[int, ...] = (4, 84, 84),
        categories: tuple[int, ...] | None = None,
        hidden: int = 512,
    ):
        super().__init__()
        self.observation = observation_kind(shape, categories)
        encoded = encoder(shape, categories, _of_pictures, hidden)
        for name, layer in encoded.named_children():
            self.add_module(name, layer)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(encoded.width, hidden)
        self.relu4 = nn.ReLU()
        self.q = nn.Linear(hidden, num_actions)
        self.hook_points = {
            **encoded.points(),
            "fc.pre": HookPoint("fc", "B D"),
            "fc.post": HookPoint("relu4", "B D", head="q"),
            "q": HookPoint("q", "B D"),
        }

    def step(self, obs: Tensor, state: State = (), first: Tensor | None = None) -> PolicyOutput:
        x = obs
        for layer in self.children():
            x = layer(x) if layer is not self.q else in_float32(self.q, x)
        return PolicyOutput(q_values=x)


def make_agent(config: DQNConfig) -> DQN | Transfer[DQN]:
    """The untrained agent of a configuration; an explorer has the sizes of its own run."""
    task = _dqn(config)
    if config.explorer is None:
        return task
    theirs = explorer_config(config, "dqn")
    if theirs.rescale != config.rescale:
        raise UserError(
            f"{config.explorer} was trained with rescale={theirs.rescale}, and this run has rescale={config.rescale}; "
            f"values on different scales can't be added: give {'--rescale' if theirs.rescale else '--no-rescale'}."
        )
    return Transfer(task, _dqn(theirs), task.q)


def _dqn(config: DQNConfig) -> DQN:
    env = config.env
    return DQN(len(env.action_names), env.observation_shape, env.categories, config.hidden)


def _of_pictures(shape: tuple[int, ...]) -> Encoder:
    """The Nature CNN, or for pictures that are too small for it the ResNet."""
    return nature_cnn(shape) if min(shape[1:]) >= NATURE_SIDE else resnet(shape)
