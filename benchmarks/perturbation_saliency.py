"""Frames per second of perturbation saliency, beside loops that perturb one mask at a time.

All blur 17×17 places of an 84×84×4 observation of Ms. Pac-Man with the same masks and ask the same DQN
for its advantage. The loops use NumPy, SciPy's Gaussian filter and one forward per mask: one blurs each
frame once, the other, as Greydanus et al.'s (2018) published script does, again for every mask. The
limit is the forwards alone, in our batches, on observations that lie ready.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.measure import Result, main
from rl_interp.agents.dqn import DQN
from rl_interp.core.envs import AtariConfig, make_vector
from rl_interp.saliency import Advantage, Perturbation
from rl_interp.saliency.methods.perturbation import CHUNK

FRAMES = 40


def observations() -> torch.Tensor:
    """`[FRAMES, 4, 84, 84]` of random play."""
    env = make_vector(AtariConfig(), FRAMES)
    obs, rng = env.reset(0), np.random.default_rng(0)
    for _ in range(100):
        env.send(rng.integers(9, size=FRAMES))
        obs = env.recv().obs
    env.close()
    return torch.from_numpy(obs)


def rate(function: Callable[[torch.Tensor], object], obs: torch.Tensor) -> float:
    function(obs[:1])
    start = time.perf_counter()
    for frame in obs.split(1):
        function(frame)
    return len(obs) / (time.perf_counter() - start)


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


def measure() -> Result:
    """Perturbation saliency, frames per second."""
    torch.manual_seed(0)
    agent, obs = DQN(9).eval(), observations()
    ours = Perturbation()
    np.testing.assert_allclose(ours.scores(agent, obs[:1], Advantage())[0], one_at_a_time(agent, obs[:1]), atol=1e-5)
    return Result(
        "perturbation_saliency",
        "frames/s",
        rate(lambda frame: ours(agent, frame, Advantage()), obs),
        {
            "one mask at a time": rate(lambda frame: one_at_a_time(agent, frame), obs[: FRAMES // 8]),
            "the same, blurring for each": rate(lambda frame: one_at_a_time(agent, frame, True), obs[: FRAMES // 8]),
        },
        rate(lambda frame: forwards_alone(agent, frame), obs),
        {"masks": "17 × 17", "observation": "84 × 84 × 4"},
    )


if __name__ == "__main__":
    main(measure, ("scipy", "ale-py"))
