"""Circuits found by reinforcement learning: an environment whose actions cut, and one policy for all."""
