"""A network and observations that most tests of maps ask for."""

import numpy as np
import pytest
import torch
from map_agents import SIZE, Seer
from torch import Tensor


@pytest.fixture
def agent() -> Seer:
    return Seer()


@pytest.fixture
def obs() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 2, SIZE, SIZE), np.uint8))
