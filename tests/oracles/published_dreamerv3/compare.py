"""Our DreamerV3 beside what `reference.py` recorded: every part, loss term, gradient, and one whole update."""

import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from rl_interp.agents.dreamerv3 import DreamerV3, DreamerV3Config, Latent, distributions, make_agent
from rl_interp.agents.dreamerv3.behaviour import lambda_returns
from rl_interp.agents.dreamerv3.learner import Learner
from rl_interp.agents.pretrained.dreamerv3 import to_state_dict
from rl_interp.core.envs import EnvConfig
from rl_interp.core.tables import markdown


@dataclass(frozen=True)
class Fixture(EnvConfig):
    """The spaces of a recording: there is nothing to play."""

    id: str = "fixture"
    shape: tuple[int, ...] = (3, 64, 64)
    cells: tuple[int, ...] | None = field(default=None)

    @property
    def action_names(self):
        return tuple("abcde")

    @property
    def observation_shape(self):
        return self.shape

    @property
    def categories(self):
        return self.cells


def load(arrays: Mapping[str, np.ndarray], size: str) -> tuple[DreamerV3, dict[str, np.ndarray]]:
    """The agent with the recorded weights, and the recorded batch, time first."""
    data = {name.removeprefix("data/"): arrays[name] for name in arrays if name.startswith("data/")}
    if "image" in data:
        env = Fixture(shape=(3, *data["image"].shape[2:4]))
        obs = data["image"].transpose(1, 0, 4, 2, 3)
    else:
        env = Fixture(shape=(2, 4, 4), cells=(3, 2))
        cells = data["vector"].reshape(*data["vector"].shape[:2], 4, 4, 5).transpose(1, 0, 2, 3, 4)
        obs = np.stack([cells[..., :3].argmax(-1), cells[..., 3:].argmax(-1)], 2)
    agent = make_agent(DreamerV3Config(env=env, size=size, precision="fp32"))
    weights = {n.removeprefix("weights/"): arrays[n] for n in arrays if n.startswith("weights/")}
    agent.load_state_dict(to_state_dict(weights))
    batch = {
        "obs": obs.astype(np.uint8),
        "actions": data["action"].argmax(-1).T,
        "rewards": data["reward"].T,
        "terminated": data["is_terminal"].T,
        "first": data["is_first"].T,
    }
    return agent, {name: np.ascontiguousarray(array) for name, array in batch.items()}


def same_noise(batch: int, length: int):
    """What takes the place of `distributions._uniform`: numbers in the middle of the class that the reference's
    noise chooses, so that rounding does not decide between two."""

    def uniform(probs: torch.Tensor) -> torch.Tensor:
        seed = zlib.crc32(repr(tuple(probs.shape)).encode())
        noise = np.random.default_rng(seed).gumbel(size=tuple(probs.shape)).astype(np.float32)
        if len(noise) == batch * length:  # dreams start in the order of [T, B], and of [B, T] there
            noise = noise.reshape(batch, length, *noise.shape[1:]).swapaxes(0, 1).reshape(noise.shape)
        chosen = (probs.detach().log() + torch.from_numpy(noise)).argmax(-1, keepdim=True)
        return (probs.cumsum(-1) - probs / 2).detach().gather(-1, chosen)

    return uniform


def compare(arrays: Mapping[str, np.ndarray], size: str, patch: Callable[..., None] = setattr) -> dict[str, float]:
    """Relative error ‖ours − theirs‖ / ‖theirs‖ of everything recorded.

    `step` is what an update changed: known no better than weights can be rounded, 1e-7 of them for a step of 1e-4.
    """
    agent, batch = load(arrays, size)
    length, count = batch["first"].shape
    patch(distributions, "_uniform", same_noise(count, length))
    model, behaviour = agent.world_model, agent.behaviour
    tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
    ours: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        embed = model.encode(model.scaled(tensors["obs"].flatten(0, 1))).unflatten(0, (length, count))
        led_here = torch.zeros(1, count, 5)
        latent, posterior = model.rssm.observe(embed[:1], led_here, tensors["first"][:1], model.rssm.initial(count))
        post = Latent(latent.deter[0], latent.stoch[0])
        action = torch.nn.functional.one_hot(tensors["actions"][0], 5).float()
        dream = model.rssm.imagine(post, action)
        decoded = model.decoder(post.features)
        ours |= {
            "embed": embed.swapaxes(0, 1),
            "observe/deter": post.deter, "observe/posterior": posterior[0],
            "observe/prior": model.rssm.prior_of(post.deter),
            "imagine/deter": dream.deter, "imagine/prior": model.rssm.prior_of(dream.deter),
            "decoder": decoded.permute(0, 2, 3, 1) if decoded.dim() == 4 else decoded,
            "reward": model.reward(post.features), "cont": model.cont(post.features)[..., 0],
            "actor": behaviour.policy(post.features), "critic": behaviour.critic(post.features),
            "reward_mean": distributions.two_hot_mean(model.reward(post.features)),
        }  # fmt: skip
    ours = {f"forward/{name}": value for name, value in ours.items()}
    terms, seen = model.losses(tensors)
    ours |= {f"terms/{name}_loss": value.T for name, value in terms.items()}
    model.total(terms).backward()
    start = Latent(*(leaf.detach().flatten(0, 1) for leaf in seen.latent))
    before = behaviour.low.clone(), behaviour.high.clone()
    imagined = behaviour.imagine(model, start, agent.config.imag_horizon, tensors["terminated"].flatten())
    losses = behaviour.losses(imagined)
    returns = lambda_returns(
        imagined.rewards, agent.config.discount * imagined.cont[1:], behaviour.value(imagined.features),
        agent.config.return_lambda,
    )  # fmt: skip
    ours["behaviour/returns"] = returns.unflatten(1, (length, count)).swapaxes(1, 2).flatten(1)
    (losses["actor"] + losses["critic"]).backward()
    ours |= {"behaviour/actor": losses["actor"], "behaviour/critic": losses["critic"]}
    gradients = {name: p.grad for name, p in agent.named_parameters() if p.grad is not None}
    behaviour.low.copy_(before[0])
    behaviour.high.copy_(before[1])

    earlier = {name: value.clone() for name, value in agent.state_dict().items()}
    Learner(agent, torch.device("cpu")).update(batch)
    steps = {name: value - earlier[name] for name, value in agent.state_dict().items()}

    def recorded(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): arrays[name] for name in arrays if name.startswith(prefix)}

    errors = {name: _error(value.detach().numpy(), arrays[name]) for name, value in ours.items()}
    theirs = {"gradient": to_state_dict(recorded("gradients/"))}
    first, then = to_state_dict(recorded("weights/")), to_state_dict(recorded("updated/"))
    theirs["step"] = {name: then[name] - first[name] for name in then}
    for what, mine in (("gradient", gradients), ("step", steps)):
        for name, value in theirs[what].items():
            errors[f"{what} {name}"] = _error(mine[name].numpy(), value.numpy())
    return errors


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-12))


LIMITS = {"step": 1e-2}
"""By the first word of a name; 1e-4 for the others."""


def limit(name: str) -> float:
    return LIMITS.get(name.split()[0], 1e-4)


def table(errors: Mapping[str, float]) -> str:
    """Worst error of each part, as Markdown."""
    groups: dict[str, list[str]] = {}
    for name in errors:
        what, _, path = name.partition(" ")
        groups.setdefault(f"{what} of {'.'.join(path.split('.')[:2])}" if path else name, []).append(name)
    rows = []
    for group, names in groups.items():
        worst = max(errors[name] for name in names)
        rows.append([group, len(names), f"{worst:.1e}", f"{limit(names[0]):.0e}"])
    return markdown(["what", "tensors", "largest relative error", "limit"], rows)


def main() -> int:
    with np.load(sys.argv[1]) as arrays:
        errors = compare(dict(arrays), sys.argv[2])
    print(table(errors), end="")
    above = [name for name, error in errors.items() if not error <= limit(name)]
    if above:
        print(f"above their limits: {', '.join(above)}")
    return len(above) > 0


if __name__ == "__main__":
    sys.exit(main())
