"""Loading takes at most one and a half times the weights and 300 MB, beside what the imports take."""

import json
import subprocess
import sys

import pytest
import torch
import yaml

from rl_interp import sae
from rl_interp.agents.impala import IMPALAConfig, make_agent
from rl_interp.core.config import to_plain
from rl_interp.core.envs import CrafterConfig
from rl_interp.core.run import Run

CONFIG = IMPALAConfig(env=CrafterConfig(), hidden=50_000, lstm=0)
MEASURE = """
import json, sys
from rl_interp.agents.load import load_agent
from rl_interp.core.errors import UserError
import rl_interp.agents.impala, sae
def peak():  # of this program: what getrusage says goes on from its parent
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
load = {"agent": lambda path: load_agent(path, device="cpu"), "dictionary": sae.load}[sys.argv[2]]
before = peak()
try:
    load(sys.argv[1])
    said = ""
except UserError as error:
    said = str(error)
print(json.dumps({"grown": peak() - before, "said": said}))
"""


def measure(path, what):
    command = [sys.executable, "-c", MEASURE, str(path), what]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"rescale_acts_by_decoder_norm": True}])
def test_opening_a_dictionary_takes_little_beside_its_weights(tmp_path, settings):
    path = sae.save(sae.TopK(1_000, 60_000, 5), tmp_path / "dictionary")
    config = json.loads((path / "cfg.json").read_text())
    (path / "cfg.json").write_text(json.dumps(config | settings))
    found, size = measure(path, "dictionary"), (path / "sae_weights.safetensors").stat().st_size
    print(f"{settings}: {found['grown'] / 2**20:.0f} MiB for {size / 2**20:.0f} MiB")
    assert not found["said"]
    assert found["grown"] <= 1.5 * size


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("altered", [{}, {"hidden": 49_999}, {"hidden": 10**9}, {"channels": [2**20] * 3}])
def test_loading_takes_little_beside_the_weights(tmp_path, half, altered):
    with torch.device("meta"):
        shapes = {name: w.shape for name, w in make_agent(CONFIG).state_dict().items()}
    dtype = torch.float16 if half else torch.float32
    weights = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}
    run = Run.create(tmp_path / "run", "impala", CONFIG, 0)
    run.save_checkpoint(1, weights)
    (run.path / "config.yaml").write_text(yaml.safe_dump(to_plain(CONFIG) | altered))
    found = measure(run.path, "agent")
    assert bool(found["said"]) == bool(altered), found
    size = 4 * sum(weight.numel() for weight in weights.values())  # as they are loaded
    print(f"{'half' if half else 'float32'} {altered}: {found['grown'] / 2**20:.0f} MiB for {size / 2**20:.0f} MiB")
    assert found["grown"] <= 1.5 * size + 300e6
