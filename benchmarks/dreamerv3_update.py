"""Decisions that DreamerV3 learns from per second: one update of size `small` from 16 × 64 of Crafter, in float32.

The peer is the published JAX package 1.5.0 on the same batch, in the environment that `make parity` builds (left out
where there is none). The limit is what PyTorch's own products of these sizes allow: floating-point operations of the
update, counted by PyTorch, over the rate of a large float32 product.
"""

import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Result, main
from rl_interp.agents.dreamerv3 import default_config, make_agent
from rl_interp.agents.dreamerv3.learner import Learner
from rl_interp.agents.dreamerv3.replay import Batch
from rl_interp.core.device import bf16_pays, keep_memory, pick_device

BATCH, LENGTH = 16, 64
WARM_UP = 4 if pick_device().type == "cuda" else 0  # a CUDA graph is recorded at the fourth
ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".parity" / "bin" / "python"
PUBLISHED = """
import sys, time
sys.path.insert(0, "tests/oracles/published_dreamerv3")
from reference import jax, make, np
batch, length = int(sys.argv[1]), int(sys.argv[2])
agent = make("image", "small", batch, length, 64, actions=17)
rng = np.random.default_rng(0)
data = {
    "image": rng.integers(256, size=(batch, length, 64, 64, 3), dtype=np.uint8),
    "action": np.eye(17, dtype=np.float32)[rng.integers(17, size=(batch, length))],
    "reward": rng.random((batch, length), np.float32),
    "is_first": rng.random((batch, length)) < 0.01,
    "is_last": np.zeros((batch, length), bool),
    "is_terminal": rng.random((batch, length)) < 0.01,
}
data = agent._convert_inps(data, agent.train_devices)
_, state, _ = agent.train(data)
times = []
for _ in range(2):
    start = time.perf_counter()
    _, state, _ = agent.train(data, state)
    jax.block_until_ready(agent.varibs)
    times.append(time.perf_counter() - start)
print(min(times))
"""


def batch_of(shape: tuple[int, ...], actions: int, batch: int = BATCH, length: int = LENGTH) -> Batch:
    rng, lead = np.random.default_rng(0), (length, batch)
    return {
        "obs": rng.integers(256, size=(*lead, *shape), dtype=np.uint8),
        "actions": rng.integers(actions, size=lead),
        "rewards": rng.random(lead, np.float32),
        "terminated": rng.random(lead) < 0.01,
        "first": rng.random(lead) < 0.01,
    }


def seconds(size: str, precision: str, repeats: int = 3, batch: int = BATCH, length: int = LENGTH) -> tuple[float, int]:
    """Of the fastest update, and its floating-point operations."""
    keep_memory()
    torch.manual_seed(0)
    config = default_config("CrafterReward-v1", size, precision=precision)
    learner = Learner(make_agent(config).train(), pick_device())
    drawn = batch_of(config.env.observation_shape, len(config.env.action_names), batch, length)
    with FlopCounterMode(display=False) as counter:
        learner.update(drawn)
    for _ in range(WARM_UP):
        learner.update(drawn)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        learner.update(drawn)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times), counter.get_total_flops()


def product_rate() -> float:
    """Floating-point operations per second of a product of 2048 × 2048 in float32."""
    a, b = torch.randn(2, 2048, 2048, device=pick_device())
    times = []
    for _ in range(5):
        start = time.perf_counter()
        (a @ b).sum().item()
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(times)


def measure() -> Result:
    """DreamerV3's update, size small, float32."""
    steps = BATCH * LENGTH
    ours, operations = seconds("small", "fp32")
    details = {"seconds an update": f"{ours:.2f}", "operations": f"{operations:.3g}"}
    if bf16_pays(pick_device()):
        details["seconds an update, bf16"] = f"{seconds('small', 'bf16')[0]:.2f}"
    details["seconds an update, tiny, auto"] = f"{seconds('tiny', 'auto')[0]:.2f}"
    if pick_device().type == "cuda":
        for size in ("medium", "large", "xlarge"):
            details[f"seconds an update, {size}, auto"] = f"{seconds(size, 'auto')[0]:.4f}"
    peers = {}
    if PYTHON.exists():
        done = subprocess.run(
            [str(PYTHON), "-c", PUBLISHED, str(BATCH), str(LENGTH)], capture_output=True, text=True, cwd=ROOT
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        published = float(done.stdout.split()[-1])
        peers["dreamerv3 1.5.0 (JAX)"] = steps / published
        details["seconds an update, published"] = f"{published:.2f}"
    limit = steps * product_rate() / operations
    return Result("dreamerv3_update", "steps/s", steps / ours, peers, limit, details)


if __name__ == "__main__":
    main(measure, ("numpy",))
