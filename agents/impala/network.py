"""The IMPALA agent: a torso for pixels or for symbols, perhaps an LSTM, a policy and a value.

Espeholt et al. 2018, arXiv 1802.01561, figure 3 (right): the deep residual network. The observation is all that
the agent is given; the paper's last reward and last action are left out, so that a state is what is seen.
"""

import itertools

import torch
from torch import Tensor, nn

from rl_interp.agents.impala.lstm import HookedLSTM, LSTMState, lstm_hook_points
from rl_interp.agents.impala.max_pool import MaxPool2d
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput, State


class IMPALA(Agent):
    """Logits `[T, B, A]` and values `[T, B]` from uint8 observations `[T, B, 3, H, W]`.

    Args:
        shape: of an observation, `(C, H, W)`.
        categories: where bytes are categories, how many each channel has, for a smaller network on embedded cells;
            None where they are intensities, for the deep ResNet.
        channels: of the ResNet's sections.
        lstm: its width; 0 for none, and an agent without memory.
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
        flat = self.relu(self.fc(self.torso(obs.flatten(0, 1)).flatten(1)))
        new: State = ()
        if self.lstm is not None:
            given: LSTMState = state or self.initial_state(batch)
            h, new = self.lstm(flat.unflatten(0, (time, batch)), given, first)
            flat = h.flatten(0, 1)
        logits, values = self.policy(flat).float(), self.baseline(flat).float()
        return PolicyOutput(new, logits=logits.unflatten(0, (time, batch)), value=values.view(time, batch))


class ResNet(nn.Module):
    """Sections of a convolution, a max-pool and two residual blocks."""

    def __init__(self, shape: tuple[int, ...], channels: tuple[int, ...]):
        super().__init__()
        widths = [shape[0], *channels]
        self.width = widths[-1]
        self.sections = nn.ModuleList(_Section(a, b) for a, b in itertools.pairwise(widths))
        self.relu = nn.ReLU()
        self.points = [
            (f"block{s + 1}.{name}", HookPoint(f"sections.{s}.{path}", "B C H W", "spatial"))
            for s in range(len(channels))
            for name, path in (("conv", "conv"), ("pool", "pool"), *_Residual.points(1), *_Residual.points(2))
        ]
        self.points.append(("torso.post", HookPoint("relu", "B C H W", "spatial")))
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def features(self, shape: tuple[int, ...]) -> int:
        """How many numbers come of an observation: every section halves the picture."""
        *_, height, width = shape
        for _ in self.sections:
            height, width = -(-height // 2), -(-width // 2)
        return self.width * height * width

    def forward(self, obs: Tensor) -> Tensor:
        """`[B, C, H, W]`, bytes or floats on the same 0-255 scale, to the last section's `[B, C', H', W']`."""
        kind = obs.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        x = obs.contiguous(memory_format=torch.channels_last).to(dtype) * (1 / 255)
        for section in self.sections:
            x = section(x)
        return self.relu(x)


class _Section(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.pool = MaxPool2d()
        self.res1, self.res2 = _Residual(outputs), _Residual(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.res2(self.res1(self.pool(self.conv(x))))


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.relu1, self.conv1 = nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        self.relu2, self.conv2 = nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.relu2(self.conv1(self.relu1(x))))

    @staticmethod
    def points(number: int) -> tuple[tuple[str, str], ...]:
        """Name and path of its sites: before and after the inner nonlinearity, and the sum."""
        name = f"res{number}"
        return ((f"{name}.pre", f"{name}.conv1"), (f"{name}.post", f"{name}.relu2"), (f"{name}.sum", name))


class SymbolNet(nn.Module):
    """Cells embedded by each of their categories, the embeddings summed, and two convolutions."""

    def __init__(self, categories: tuple[int, ...], width: int = 32):
        super().__init__()
        self.total, self.width = sum(categories), 2 * width
        self.embed = nn.Conv2d(self.total, width, 1, bias=False)
        self.conv1, self.relu1 = nn.Conv2d(width, width, 3), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(width, 2 * width, 3), nn.ReLU()
        self.points = [
            (name, HookPoint(path, "B C H W", "spatial"))
            for name, path in (
                ("embed", "embed"), ("conv1.pre", "conv1"), ("conv1.post", "relu1"), ("conv2.pre", "conv2"),
                ("conv2.post", "relu2"),
            )
        ]  # fmt: skip
        # Not a weight, and so no checkpoint's: real even where the network is made without memory.
        offsets = torch.tensor([0, *itertools.accumulate(categories[:-1])], device="cpu")[:, None, None]
        self.register_buffer("offsets", offsets, persistent=False)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def features(self, shape: tuple[int, ...]) -> int:
        """How many numbers come of an observation: both convolutions take a cell from every side."""
        *_, height, width = shape
        return self.width * (height - 4) * (width - 4)

    def forward(self, obs: Tensor) -> Tensor:
        """`[B, C, H, W]` categories as bytes, to `[B, C', H', W']`."""
        assert isinstance(self.offsets, Tensor)
        one_hot = torch.zeros(len(obs), *obs.shape[-2:], self.total, device=obs.device)
        one_hot.scatter_(-1, (obs.long() + self.offsets).permute(0, 2, 3, 1), 1.0)
        one_hot = one_hot.permute(0, 3, 1, 2)  # as a view: channels are last in memory
        x = self.relu1(self.conv1(self.embed(one_hot)))
        return self.relu2(self.conv2(x))
