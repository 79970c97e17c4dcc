"""An agent as it learned: the checkpoints that were kept of its training, all in the same states."""
