"""Environment steps per second of DreamerV3's whole training on Crafter: playing, remembering, learning.

Size `tiny` with its defaults for a CPU; on a GPU also the published sizes, with theirs. The limit is the updates alone,
on a batch always at hand: steps per update over seconds per update. No peer has this size; an update of a published
size is compared with the published package's in `dreamerv3_update`.
"""

import tempfile
import time
from pathlib import Path

import torch

from benchmarks import dreamerv3_update
from benchmarks.measure import Result, main
from rl_interp.agents.dreamerv3 import Training, default_config
from rl_interp.agents.dreamerv3.config import SIZES
from rl_interp.core.device import pick_device

SECONDS = 30.0


def steps_per_second(size: str) -> float:
    """The rate of training, once the first updates have been taken."""
    config = default_config("CrafterReward-v1", size, agent_steps=10_000)
    with tempfile.TemporaryDirectory() as directory:
        training = Training(config, seed=0, directory=Path(directory))
        try:
            while training.learner.updates < 5:
                training.advance()
            begin, first = time.perf_counter(), training.agent_steps
            while time.perf_counter() - begin < SECONDS:
                training.advance()
            return (training.agent_steps - first) / (time.perf_counter() - begin)
        finally:
            training.close()


def measure() -> Result:
    """DreamerV3 training on Crafter, steps per second."""
    ours, config = steps_per_second("tiny"), default_config("CrafterReward-v1", "tiny")
    update, _ = dreamerv3_update.seconds("tiny", "auto", batch=config.batch_size, length=config.batch_length)
    each = config.batch_size * config.batch_length / config.train_ratio
    details = {"steps per update": each, "seconds per update": f"{update:.3f}"}
    if pick_device().type == "cuda":
        published = [size for size in SIZES if size not in ("debug", "tiny")]
        details |= {f"{size}, steps/s": f"{steps_per_second(size):.1f}" for size in published}
    return Result("dreamerv3_training", "steps/s", ours, {}, each / update, details)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(measure, ("crafter", "numba"))
