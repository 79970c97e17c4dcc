"""Autoencoders as runs: fitted on an agent's activations, measured on the agent, swept over sizes."""
