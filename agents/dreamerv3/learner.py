"""One DreamerV3 update: the world model from replayed sequences, then actor and critic from dreams."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rl_interp.agents.dreamerv3.agent import DreamerV3
from rl_interp.agents.dreamerv3.behaviour import Guide
from rl_interp.agents.dreamerv3.graph import CUDAGraph
from rl_interp.agents.dreamerv3.replay import Batch
from rl_interp.agents.dreamerv3.rssm import Latent
from rl_interp.core.device import send

EXPLORER = "explorer_"
"""What the names of an explorer's latents begin with, where the replay keeps them."""


class Learner:
    """The agent with its three optimisers."""

    def __init__(self, agent: DreamerV3, device: torch.device):
        self.agent, self.config = agent.to(device), agent.config
        self.device = device
        model, behaviour = agent.world_model, agent.behaviour
        config = agent.config
        self.parts = {
            "model": _Part(model.parameters(), config.model_lr, 1e-8, 1000.0),
            "actor": _Part(behaviour.actor.parameters(), config.behaviour_lr, 1e-5, 100.0),
            "critic": _Part(behaviour.critic.parameters(), config.behaviour_lr, 1e-5, 100.0),
        }
        self.bf16 = config.computes_in_bf16(device)
        self.updates = 0
        self._update = CUDAGraph(self._take_steps) if device.type == "cuda" else self._take_steps

    def update(self, batch: Batch) -> tuple[dict[str, Tensor], Latent | None]:
        """Take one step of each optimiser.

        Returns:
            Loss terms, gradient norms and figures as scalars; and the latents `[T, B, ...]` of the batch, if the replay
            keeps them.
        """
        found = self._update({name: send(array, self.device) for name, array in batch.items()})
        self.updates += 1
        return found, Latent(*map(found.pop, Latent._fields)) if self.config.replay_latents else None

    def _take_steps(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        agent, config = self.agent, self.config
        # The world model learns to predict what was seen.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            terms, seen = agent.world_model.losses(tensors)
            total = agent.world_model.total(terms)
        figures = {f"{name}_loss": value.mean() for name, value in terms.items()}
        figures["model_grad_norm"] = self.parts["model"].step(total)
        # With the new model, a dream from every latent of the batch.
        start = Latent(*(leaf.detach().flatten(0, 1) for leaf in seen.latent))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            dream = agent.behaviour.imagine(
                agent.world_model,
                start,
                config.imag_horizon,
                tensors["terminated"].flatten(),
                guide=self._guide(tensors),
            )
        # A context of its own: within one, autocast would reuse the weights that it cast for the dream, which have no
        # gradients.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses = agent.behaviour.losses(dream)
        # Actor and critic learn from the dream alone.
        for name in ("actor", "critic"):
            figures[f"{name}_grad_norm"] = self.parts[name].step(losses[name])
            figures[f"{name}_loss"] = losses.pop(name)
        # The first time the whole way: the slow critic starts as the critic is after its first update, as published.
        agent.behaviour.follow(config.slow_fraction if self.updates else 1.0)
        kept = seen.latent._asdict() if config.replay_latents else {}
        return {name: value.detach() for name, value in (figures | losses | kept).items()}

    @torch.no_grad()
    def _guide(self, tensors: dict[str, Tensor]) -> Guide | None:
        """The explorer where the dreams begin: it has followed the same sequences in its own world model."""
        explorer = self.agent.explorer
        if explorer is None:
            return None
        model = explorer.world_model
        before = model.before(tensors, EXPLORER)
        seen = model.observe(tensors["obs"], tensors["actions"], tensors["first"], before)
        return Guide(model, explorer.behaviour, Latent(*(leaf.flatten(0, 1) for leaf in seen.latent)))

    def state(self) -> dict[str, Any]:
        parts = {name: part.optimizer.state_dict() for name, part in self.parts.items()}
        return {"updates": self.updates, "optimizers": parts}

    def restore(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, part in self.parts.items():
            part.optimizer.load_state_dict(state["optimizers"][name])
            for group in part.optimizer.param_groups:  # a run may go on on a different kind of device
                group["capturable"] = self.device.type == "cuda"


class _Part:
    """Parameters that are learned together, their optimiser, and the norm that their gradients are clipped to."""

    def __init__(self, parameters: Iterable[nn.Parameter], rate: float, eps: float, clip: float):
        self.parameters, self.clip = list(parameters), clip
        on_cuda = self.parameters[0].is_cuda
        self.optimizer = torch.optim.Adam(self.parameters, rate, eps=eps, fused=True, capturable=on_cuda)

    def step(self, loss: Tensor) -> Tensor:
        """Take a step down the loss; returns the gradients' norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        return norm
