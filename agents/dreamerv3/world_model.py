"""The world model: an encoder of observations, the RSSM that follows them, and heads that predict them."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rl_interp.agents.dreamerv3 import distributions
from rl_interp.agents.dreamerv3.config import SIZES, DreamerV3Config
from rl_interp.agents.dreamerv3.networks import MLP, ImageDecoder, ImageEncoder, Points, VectorEncoder, picture_shape
from rl_interp.agents.dreamerv3.rssm import RSSM, Latent
from rl_interp.core.agent import HookPoint
from rl_interp.core.hooks import phase


@dataclass(frozen=True)
class Observed:
    """What `WorldModel.observe` gives: `[T, B, ...]`."""

    latent: Latent
    posterior: Tensor
    """Log-probabilities `[T, B, S, K]` with the observation."""
    prior: Tensor
    """Log-probabilities `[T, B, S, K]` without it."""


class WorldModel(nn.Module):
    """Encoder, RSSM, decoder, and heads for the reward, for going on, and for the bonus if there is one.

    Pixels go through convolutions, resized to 64×64 where their sides are not equal powers of two. Vectors go through
    an MLP of their symlog. Symbols become one vector of zeros and ones, with a one for the category at each place.
    """

    def __init__(self, config: DreamerV3Config):
        super().__init__()
        env, size = config.env, SIZES[config.size]
        self.config, self.symbols, self.num_actions = config, env.categories, len(env.action_names)
        shape, width = env.observation_shape, size.deter + size.stoch * size.classes
        self.pixels = env.observation_kind == "pixels"
        if self.pixels:
            seen = picture_shape(shape)
            self.resize = nn.Identity() if seen == shape else nn.AdaptiveAvgPool2d(seen[1:])
            self.encoder = ImageEncoder(seen, size.depth)
            self.decoder = ImageDecoder(width, seen, size.depth)
        else:
            places = prod(shape) if self.symbols is None else prod(shape[1:]) * sum(self.symbols)
            self.encoder = VectorEncoder(places, size.vector_layers, size.vector_units)
            self.decoder = MLP(width, size.vector_layers, size.vector_units, places)
        self.embed = nn.Identity()
        self.rssm = RSSM(
            self.encoder.width, self.num_actions, size.deter, size.units, size.stoch, size.classes, config.unimix
        )
        self.reward = MLP(width, size.layers, size.units, distributions.BINS, scale=0.0)
        self.bonus = MLP(width, size.layers, size.units, distributions.BINS, scale=0.0) if config.cbet else None
        self.cont = MLP(width, size.layers, size.units, 1)

    def points(self, path: str) -> Points:
        heads = [(name, getattr(self, name)) for name in ("decoder", "reward", "bonus", "cont")]
        return [
            *self.encoder.points("encoder", f"{path}.encoder"),
            ("embed", HookPoint(f"{path}.embed", "B D")),
            *self.rssm.points(f"{path}.rssm"),
            *(point for name, head in heads if head is not None for point in head.points(name, f"{path}.{name}")),
        ]

    def scaled(self, obs: Tensor) -> Tensor:
        """Observations `[B, ...]` as they are encoded and predicted: pixels in [0, 1], of the encoder's size; vectors;
        or symbols as `[B, places]` of zeros and ones."""
        if self.pixels:
            return self.resize(obs.float() / 255)
        if self.symbols is None:
            return obs.float()
        each = [distributions.one_hot(obs[:, i].long(), count) for i, count in enumerate(self.symbols)]
        return torch.cat(each, -1).flatten(1)

    def encode(self, scaled: Tensor) -> Tensor:
        """`[B, ...]` to `[B, E]`."""
        return self.embed(self.encoder(scaled))

    def observe(
        self, obs: Tensor, actions: Tensor, first: Tensor, before: tuple[Latent, Tensor] | None = None
    ) -> Observed:
        """Follow sequences of observations `[T, B, ...]`.

        Args:
            actions: int64 `[T, B]`, each taken after its observation; the last one does not matter.
            first: `[T, B]`: where an episode begins.
            before: the latent `[B, ...]` to go on from and the action taken there, one-hot `[B, A]`; by default the
                learned initial latent.
        """
        return self._observe(self.scaled(obs.flatten(0, 1)), actions, first, before)

    def _observe(
        self, scaled: Tensor, actions: Tensor, first: Tensor, before: tuple[Latent, Tensor] | None
    ) -> Observed:
        taken = distributions.one_hot(actions, self.num_actions)
        if before is None:
            before = self.rssm.initial(first.shape[1]), torch.zeros_like(taken[0])
        led_here = torch.cat([before[1][None], taken[:-1]])
        with phase("observe"):
            embed = self.encode(scaled).unflatten(0, first.shape)
            post, posterior = self.rssm.observe(embed, led_here, first, before[0])
            return Observed(post, posterior, self.rssm.prior_of(post.deter))

    def before(self, batch: dict[str, Tensor], prefix: str = "") -> tuple[Latent, Tensor] | None:
        """The latent and the action before a replayed batch's sequences, for `observe`; None if it has none."""
        if "before_actions" not in batch:
            return None
        latent = self.rssm.unpacked(*(batch[f"before_{name}"] for name in self.rssm.packing(prefix)))
        return latent, distributions.one_hot(batch["before_actions"], self.num_actions)

    def losses(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Observed]:
        """Loss terms `[T, B]` before their weights, and the latents.

        Args:
            batch: `obs`, `actions` int64 (taken after the observation), `rewards`, `terminated` and `first`
                (of arriving at the observation), and `bonus` if the model has that head; all `[T, B, ...]`. If it has
                `before_deter [B, D]`, `before_stoch [B, S]` (classes) and `before_actions [B]`, the sequences go on
                from there.
        """
        # Follow the sequences: posterior latents, and the priors that were predicted without the observations.
        first, scaled = batch["first"], self.scaled(batch["obs"].flatten(0, 1))
        seen = self._observe(scaled, batch["actions"], first, self.before(batch))
        # Priors and posteriors are pulled together, each by a weight of its own, but not below the free nats.
        kl = {
            "dyn": distributions.kl_divergence(seen.posterior.detach(), seen.prior),
            "rep": distributions.kl_divergence(seen.posterior, seen.prior.detach()),
        }
        terms = {name: value.clamp(min=self.config.free_nats) for name, value in kl.items()}
        # The heads predict the observation, and what came with it, from the latent.
        features = seen.latent.features
        predicted = self.decoder(features.flatten(0, 1))
        if self.pixels:
            image = F.mse_loss(predicted, scaled, reduction="none").sum((-3, -2, -1))
        else:
            image = distributions.symlog_error(predicted, scaled)
        terms["image"] = image.unflatten(0, first.shape)
        terms["reward"] = distributions.two_hot_loss(self.reward(features), batch["rewards"])
        if self.bonus is not None:
            terms["bonus"] = distributions.two_hot_loss(self.bonus(features), batch["bonus"])
        going_on = (~batch["terminated"]).float()
        terms["cont"] = F.binary_cross_entropy_with_logits(
            self.cont(features)[..., 0].float(), going_on, reduction="none"
        )
        return terms, seen

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of loss terms, each a mean over steps."""
        weights = {"dyn": self.config.dyn_scale, "rep": self.config.rep_scale}
        return torch.stack([weights.get(name, 1.0) * value.mean() for name, value in terms.items()]).sum()

    def picture(self, latent: Latent) -> Tensor:
        """Predicted observations `[..., *shape]` of latents `[...]`, of the environment's shape and type."""
        lead, shape = latent.deter.shape[:-1], self.config.env.observation_shape
        predicted = self.decoder(latent.features.flatten(0, -2))
        if self.pixels:
            if predicted.shape[1:] != shape:
                predicted = F.interpolate(predicted, shape[1:], mode="bilinear")
            return (predicted.clamp(0, 1) * 255).round().to(torch.uint8).unflatten(0, lead)
        if self.symbols is None:
            return distributions.symexp(predicted.float()).unflatten(0, lead)
        _, height, width = shape
        parts = predicted.view(-1, height, width, sum(self.symbols)).split(list(self.symbols), -1)
        return torch.stack([part.argmax(-1) for part in parts], 1).to(torch.uint8).unflatten(0, lead)
