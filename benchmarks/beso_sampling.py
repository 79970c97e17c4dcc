"""Decisions per second of BESO in a batch of 256: three denoising steps by Euler with the goal (guidance 1), beside
three bare forward passes of the same denoiser. Both take turns in one process and one thread; times are the
processor's.

What ours does besides is to keep windows, draw noise, take the sampler's steps and return to the environment's units.
"""

import time
from statistics import median

import torch

from benchmarks.measure import Result, main
from rl_interp.agents.beso import BESO, Sampling, default_config, make_agent

BATCH, ROUNDS = 256, 30


@torch.no_grad()
def measure() -> Result:
    """Decisions of BESO, per second."""
    torch.set_num_threads(1)
    agent = make_agent(default_config("rl_interp/TwoWays-v0", sampling=Sampling(steps=3, guidance=1.0))).eval()
    assert isinstance(agent, BESO)
    obs, window = torch.randn(BATCH, 4), agent.window
    state = agent.initial_state(BATCH)
    noised, states, goal = torch.randn(BATCH, window, 2), torch.randn(BATCH, window, 2), torch.randn(BATCH, 2)
    sigma = torch.full((BATCH,), 0.5)
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for round_number in range(ROUNDS + 1):
        for name in times:
            start = time.process_time()
            if name == "ours":
                agent.step(obs, state)
            else:
                for _ in range(3):
                    agent.denoiser(noised, sigma, states, goal)
            if round_number:
                times[name].append(time.process_time() - start)
    ours, bare = (BATCH / median(each) for each in times.values())
    details = {"batch": BATCH, "window": window, "passes": 3, "in units of one pass": 3 * bare / ours}
    return Result("beso_sampling", "decisions/s", ours, {"three bare passes": bare}, details=details)


if __name__ == "__main__":
    main(measure, ())
