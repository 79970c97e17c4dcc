"""Updates per second of training BESO on two ways round a post, beside a bare loop of the same network: forward,
squared error, backward and AdamW on a batch that is there. Both take turns in one process and one thread; times are the
processor's.

What ours does besides is to draw windows, goals, noise and noise levels, to clip gradients and to average weights.
"""

import copy
import time
from statistics import median

import torch

from benchmarks.measure import Result, main
from rl_interp.agents.beso import BESO, Training, default_config
from rl_interp.agents.transformer.training import optimizer

ROUNDS = 200


def measure() -> Result:
    """Training BESO, updates per second."""
    torch.set_num_threads(1)
    config = default_config("rl_interp/TwoWays-v0", demonstrations=100)
    training = Training(config, 0, "cpu")
    network = copy.deepcopy(training.learner)
    assert isinstance(network, BESO)
    descent, batch, window = optimizer(network, config), config.num_envs, config.window
    noised, states, goal = torch.randn(batch, window, 2), torch.randn(batch, window, 2), torch.randn(batch, 2)
    target, sigma = torch.randn(batch, window, 2), torch.rand(batch) + 0.01
    times: dict[str, list[float]] = {"ours": [], "bare": []}
    for round_number in range(ROUNDS + 1):
        for name in times:
            start = time.process_time()
            if name == "ours":
                training.advance()
            else:
                loss = (network.denoiser.raw(noised, sigma, states, goal) - target).square().mean()
                descent.zero_grad(set_to_none=True)
                loss.backward()
                descent.step()
            if round_number:
                times[name].append(time.process_time() - start)
    ours, bare = (1 / median(each) for each in times.values())
    details = {
        "windows": batch,
        "steps of a window": window,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    return Result("beso_training", "updates/s", ours, {"bare loop": bare}, details=details)


if __name__ == "__main__":
    main(measure, ())
