"""What CBET's bonus costs: steps per second of IMPALA's training with it, beside the same training without.

On MiniGrid, where a step is cheap and the bonus therefore dear, with panoramas. Memory is measured over the whole
run: the count tables are of a fixed size.
"""

import resource
from dataclasses import replace

import torch

from benchmarks.measure import Result, main
from benchmarks.minigrid_training import CONFIG, TASK, steps_per_second
from rl_interp.agents.cbet import CBETConfig


def measure() -> Result:
    """IMPALA training on a MiniGrid task with CBET, steps per second."""
    torch.set_num_threads(1)
    # Alternating, so that a busy machine slows both down.
    pairs = [(steps_per_second(CONFIG), steps_per_second(replace(CONFIG, cbet=CBETConfig()))) for _ in range(2)]
    without, with_bonus = (sum(each) / len(pairs) for each in zip(*pairs, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Result(
        "cbet_cost", "steps/s", with_bonus, {"without the bonus": without}, None,
        {"task": TASK, "cost": f"{1 - with_bonus / without:.1%}", "peak memory of the learner": f"{peak:.0f} MiB"},
    )  # fmt: skip


if __name__ == "__main__":
    main(measure, ("minigrid",))
