"""Frames per second of perturbation saliency, beside whole pictures in batches, and loops of one mask at a time.

All blur 17×17 places of an 84×84×4 observation of Ms. Pac-Man with the same masks and ask the same DQN for its
advantage. Ours computes only what each mask changes. The batches are ours too, as it asks an agent that it can't do so
for. The loops use NumPy, SciPy's Gaussian filter and one forward per mask: one blurs each frame once, the other, as
Greydanus et al.'s (2018) published script does, again for every mask. The limit is that of whole pictures: the forwards
alone, on observations that lie ready. All take turns, and the fastest turn of each counts.

Of the deep ResNet the same is said with a mask for each cell of a maze.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.measure import Result, main
from rl_interp.agents.dqn import DQN
from rl_interp.agents.impala.agent import IMPALA
from rl_interp.core.agent import Agent
from rl_interp.core.envs import AtariConfig, make_vector
from rl_interp.saliency import Advantage, Perturbation
from rl_interp.saliency.methods.perturbation import CHUNK

FRAMES = 40
TURNS = 5
CELLS = Perturbation(sigma=1.0, stride=2)
"""Masks of a maze's cells, 2 px wide."""


def observations() -> torch.Tensor:
    """`[FRAMES, 4, 84, 84]` of random play."""
    env = make_vector(AtariConfig(), FRAMES)
    obs, rng = env.reset(0), np.random.default_rng(0)
    for _ in range(100):
        env.send(rng.integers(9, size=FRAMES))
        obs = env.recv().obs
    env.close()
    return torch.from_numpy(obs)


def rates(functions: dict[str, Callable[[torch.Tensor], object]], obs: dict[str, torch.Tensor]) -> dict[str, float]:
    """Frames per second, each function of its own observations `[N, 1, ...]` a turn."""
    best = dict.fromkeys(functions, 0.0)
    for turn in range(TURNS + 1):
        for name, function in functions.items():
            frames = obs[name] if turn else obs[name][:1]
            start = time.perf_counter()
            for frame in frames:
                function(frame)
            best[name] = max(best[name], turn and len(frames) / (time.perf_counter() - start))
    return best


def on_whole_pictures(method: Perturbation, agent: Agent, frame: torch.Tensor) -> np.ndarray:
    """As an agent is asked whose values somebody watches."""
    watched = next(iter(agent.children())).register_forward_hook(lambda module, args, out: None)
    try:
        return method(agent, frame, Advantage())
    finally:
        watched.remove()


@torch.no_grad()
def one_at_a_time(agent: DQN, obs: torch.Tensor, blur_each: bool = False) -> np.ndarray:
    """`[17, 17]` scores, mask by mask."""
    settings = Perturbation()
    image = obs[0].numpy().astype(np.float32)

    def blur() -> np.ndarray:
        return np.stack([gaussian_filter(plane, settings.sigma, truncate=4, mode="mirror") for plane in image])

    blurred = blur()

    def q_values(pixels: np.ndarray) -> np.ndarray:
        return agent.step(torch.from_numpy(pixels[None])).preferences[0].numpy()

    q = q_values(image)
    chosen = q.argmax()
    scores = []
    for mask in settings.masks(84, 84).numpy():
        perturbed = q_values(image * (1 - mask) + (blur() if blur_each else blurred) * mask)
        scores.append((q[chosen] - q.mean()) - (perturbed[chosen] - perturbed.mean()))
    return np.array(scores).reshape(17, 17)


@torch.no_grad()
def forwards_alone(agent: DQN, obs: torch.Tensor) -> None:
    batch = obs.float().expand(CHUNK, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    for start in range(0, 17 * 17, CHUNK):
        agent.step(batch[: 17 * 17 - start])


def on_a_resnet() -> float:
    """How many times as fast as whole pictures a map of 32×32 cells is."""
    agent = IMPALA(5, (3, 64, 64), lstm=0).eval()
    frames = torch.randint(0, 256, (1, 1, 3, 64, 64), dtype=torch.uint8)
    found = rates(
        {
            "ours": lambda frame: CELLS(agent, frame, Advantage()),
            "whole": lambda frame: on_whole_pictures(CELLS, agent, frame),
        },
        {"ours": frames, "whole": frames},
    )
    return found["ours"] / found["whole"]


def measure() -> Result:
    """Perturbation saliency, frames per second."""
    torch.manual_seed(0)
    agent, obs, ours = DQN(9).eval(), observations()[:, None], Perturbation()
    np.testing.assert_allclose(ours.scores(agent, obs[0], Advantage())[0], one_at_a_time(agent, obs[0]), atol=1e-5)
    functions = {
        "ours": lambda frame: ours(agent, frame, Advantage()),
        "whole pictures": lambda frame: on_whole_pictures(ours, agent, frame),
        "one mask at a time": lambda frame: one_at_a_time(agent, frame),
        "the same, blurring for each": lambda frame: one_at_a_time(agent, frame, True),
        "limit": lambda frame: forwards_alone(agent, frame),
    }
    few = ("one mask at a time", "the same, blurring for each")
    found = rates(functions, {name: obs[: 1 if name in few else FRAMES // TURNS] for name in functions})
    return Result(
        "perturbation_saliency",
        "frames/s",
        found["ours"],
        {name: found[name] for name in functions if name not in ("ours", "limit")},
        found["limit"],
        {
            "masks": "17 × 17", "observation": "84 × 84 × 4",
            "ResNet, a mask a cell": f"{on_a_resnet():.2f} times whole pictures",
        },
    )  # fmt: skip


if __name__ == "__main__":
    main(measure, ("scipy", "ale-py"))
