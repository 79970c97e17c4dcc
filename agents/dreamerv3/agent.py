"""The DreamerV3 agent: a world model and the behaviour learned in it, behind the agent contract.

Latents are samples in training and the posterior's mode in evaluation, so that what an evaluated agent does follows
from what it has seen.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from rl_interp.agents.dreamerv3.behaviour import Behaviour, Guide, Imagined
from rl_interp.agents.dreamerv3.config import DreamerV3Config
from rl_interp.agents.dreamerv3.distributions import one_hot
from rl_interp.agents.dreamerv3.rssm import Latent
from rl_interp.agents.dreamerv3.world_model import WorldModel
from rl_interp.agents.phases import explorer_config
from rl_interp.core.agent import Agent, PolicyOutput, State
from rl_interp.core.errors import UserError


class DreamerV3(Agent):
    """Logits `[T, B, A]` and values `[T, B]` from observations `[T, B, ...]` and the actions in between.

    In training mode latents are samples, as published; in `eval()` they are the posterior's mode, so that what the
    agent does follows from what it has seen. The state is `(deter, stoch, action)`.

    Heads that the policy does not need (decoder, reward, bonus, cont, prior) are computed only where a hook is on them.

    Args:
        explorer: a pre-trained agent whose policy is added to this one's: π = softmax(f_task + f_expl). It has a
            world model of its own, stays as it is, and its state follows this one's.
    """

    def __init__(self, config: DreamerV3Config, explorer: "DreamerV3 | None" = None):
        super().__init__()
        self.config, self.num_actions = config, len(config.env.action_names)
        self.world_model, self.behaviour = WorldModel(config), Behaviour(config)
        self.observation = config.env.observation_kind
        points = dict([*self.world_model.points("world_model"), *self.behaviour.points("behaviour")])
        self.explorer = explorer
        if explorer is not None:
            explorer.requires_grad_(False)
            out = self.behaviour.actor.out
            assert isinstance(out, nn.Linear)
            nn.init.zeros_(out.weight)  # so that training starts as the explorer plays
            points |= {
                f"explorer.{name}": replace(point, path=f"explorer.{point.path}")
                for name, point in explorer.hook_points.items()
            }
        self.hook_points = points

    def initial_state(self, batch: int) -> State:
        latent = self.world_model.rssm.initial(batch)
        own = (*latent, torch.zeros(batch, self.num_actions, device=latent.deter.device))
        return own if self.explorer is None else (*own, *self.explorer.initial_state(batch))

    def after_action(self, state: State, actions: Tensor) -> State:
        deter, stoch, _, *guide = state
        taken = one_hot(actions, self.num_actions)
        return (deter, stoch, taken, *(self.explorer.after_action(guide, actions) if self.explorer else ()))

    def unroll(
        self, obs: Tensor, state: State = (), first: Tensor | None = None, actions: Tensor | None = None
    ) -> PolicyOutput:
        time, batch = obs.shape[:2]
        deter, stoch, action, *guide = state or self.initial_state(batch)
        first = torch.zeros(time, batch, dtype=torch.bool, device=obs.device) if first is None else first
        # The action that led to each observation: the state's for the first, and from then on the one before.
        led_here = action[None]
        if time > 1:
            if actions is None:
                raise UserError("DreamerV3 was given observations in a row without the actions between them.")
            led_here = torch.cat([led_here, one_hot(actions[:-1], self.num_actions)])
        # The posterior latents of what was seen.
        model = self.world_model
        embed = model.encode(model.scaled(obs.flatten(0, 1))).unflatten(0, (time, batch))
        latent, _ = model.rssm.observe(embed, led_here, first, Latent(deter, stoch), greedy=not self.training)
        features = latent.features
        self._show(latent)
        # An explorer follows the same observations and actions in its own world model, and its logits are added.
        new, added = (latent.deter[-1], latent.stoch[-1], torch.zeros_like(action)), None
        if self.explorer is not None:
            with torch.no_grad():
                theirs = self.explorer.unroll(obs, tuple(guide), first, actions)
            assert theirs.logits is not None
            new, added = (*new, *theirs.state), theirs.logits
        return PolicyOutput(new, logits=self.behaviour.policy(features, added), value=self.behaviour.value(features))

    def imagine(self, state: State, horizon: int, actions: Tensor | None = None, seed: int | None = None) -> Imagined:
        """Imagine `horizon` steps from a state that `step` returned (`[B, ...]`), in the phase `imagine` of hooks.

        Args:
            actions: int64 `[H, B]` to take; by default samples of the policy.
            seed: of everything that is sampled, so that two calls differ by their interventions alone.
        """
        own, guide = Latent(*state[:2]), None
        if self.explorer is not None:
            guide = Guide(self.explorer.world_model, self.explorer.behaviour, Latent(*state[3:5]))
        given = None if actions is None else one_hot(actions, self.num_actions)
        devices = [own.deter.device] if own.deter.is_cuda else []
        with torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return self.behaviour.imagine(self.world_model, own, horizon, actions=given, guide=guide)

    def _show(self, latent: Latent) -> None:
        """Compute those heads that the policy does not need but a hook is on."""
        model, features = self.world_model, latent.features.flatten(0, -2)
        for head in (model.decoder, model.reward, model.bonus, model.cont):
            if head is not None and _watched(head):
                head(features)
        rssm = model.rssm
        if any(map(_watched, (rssm.img_out, rssm.img_stats, rssm.prior))):
            rssm.prior_of(latent.deter)


def make_agent(config: DreamerV3Config) -> DreamerV3:
    """The untrained agent of a configuration; an explorer has the sizes of its own run."""
    if config.explorer is None:
        return DreamerV3(config)
    return DreamerV3(config, make_agent(explorer_config(config, "dreamerv3")))


def _watched(module: nn.Module) -> bool:
    return any(each._forward_hooks or each._forward_pre_hooks for each in module.modules())
