"""Frames per second of perturbation saliency, beside the usual loop that perturbs one mask at a time.

Both blur 17×17 places of an 84×84×4 observation of Ms. Pac-Man with the same masks and ask the same DQN
for its advantage. The loop is what published scripts do: NumPy, SciPy's Gaussian filter and one forward
per mask. The limit is the forwards alone, in the same batches, on observations that lie ready.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from agents.dqn import DQN
from benchmarks.measure import Result, main
from rl_interp.core.envs import AtariConfig, make_vector
from saliency import Advantage, Perturbation
from saliency.perturbation import CHUNK

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
def one_at_a_time(agent: DQN, obs: torch.Tensor) -> np.ndarray:
    """The published way: blur, then mask by mask."""
    settings = Perturbation()
    image = obs[0].numpy().astype(np.float32)
    blurred = np.stack([gaussian_filter(plane, settings.sigma, truncate=4, mode="mirror") for plane in image])
    chosen, base = None, 0.0
    scores = np.empty(17 * 17, np.float32)
    for i, mask in enumerate([None, *settings.masks(84, 84).numpy()]):
        perturbed = image if mask is None else image * (1 - mask) + blurred * mask
        q = agent.step(torch.from_numpy(perturbed[None])).q_values[0]
        if mask is None:
            chosen = int(q.argmax())
            base = float(q[chosen] - q.mean())
        else:
            scores[i - 1] = base - float(q[chosen] - q.mean())
    return scores.reshape(17, 17)


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
        "saliency",
        "frames/s",
        rate(lambda frame: ours(agent, frame, Advantage()), obs),
        {"one mask at a time": rate(lambda frame: one_at_a_time(agent, frame), obs[: FRAMES // 8])},
        rate(lambda frame: forwards_alone(agent, frame), obs),
        {"masks": "17 × 17", "observation": "84 × 84 × 4"},
    )


if __name__ == "__main__":
    main(measure, ("scipy", "ale-py"))
