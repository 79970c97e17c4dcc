"""What a dictionary is held against: a random one."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rl_interp.sae.data import Activations, ArrayActivations, sample_rows
from rl_interp.sae.model import SAE
from rl_interp.sae.training.config import SAEConfig
from rl_interp.sae.training.feed import Feed
from rl_interp.sae.training.trainer import Trainer

_ROWS = 4096


def random_dictionary(data: Activations, config: SAEConfig, rows: NDArray[np.integer]) -> SAE:
    """A dictionary of the same variant and size behind the same whitening, as it starts from random directions: without
    `policy_weight`, so that it knows nothing of what is decided."""
    rows = sample_rows(rows, max(_ROWS, config.latents), np.random.default_rng(config.data_seed))
    random = replace(config, start="random", policy_weight=0.0)
    return Trainer(Feed(ArrayActivations(data.read(rows)), random), random).sae()
