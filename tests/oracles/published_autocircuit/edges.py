"""What AutoCircuit 1.0.1 says of a transformer's edges: `python tests/oracles/published_autocircuit/edges.py`, in the
checkout's root, with the environment that `benchmarks/transformer_circuits.py` names, writes `said.json`.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.transformer_circuits import STEPS, peer
from rl_interp.agents.transformer.agent import Transformer
from rl_interp.agents.transformer.config import Architecture
from rl_interp.circuits.states import States
from rl_interp.core.files import write_json

SAID = Path(__file__).parent / "said.json"
SHAPE = Architecture(vocabulary=11, context=7, layers=2, width=8, heads=2, hidden=12)
ANSWERS = torch.tensor([[3, 5]] * 4)
"""Whose logits are compared in each of the four texts: of the first, less of the second."""


def made() -> tuple[Transformer, States]:
    """An agent whose weights are drawn by NumPy, which gives the same in every version, and texts with their twins."""
    rng, agent = np.random.default_rng(0), Transformer(SHAPE).eval()
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=parameter.shape)) * 0.5)
    texts = rng.integers(11, size=(2, 4, 7))
    return agent, States(_tensor(texts[0]), counterfactual=States(_tensor(texts[1])))


def _tensor(texts: np.ndarray) -> Tensor:
    return torch.from_numpy(texts.astype(np.int64))


if __name__ == "__main__":
    agent, states = made()
    found = peer(agent, states, ANSWERS)
    assert found is not None, "AutoCircuit is not installed"
    said = {"logits": found["logits"], "steps": STEPS} | {name: found[name]["scores"] for name in ("eap", "eap-ig")}
    write_json(SAID, said)
