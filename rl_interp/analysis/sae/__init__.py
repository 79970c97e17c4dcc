"""Autoencoders as runs: fitted on an agent's activations, evaluated on the agent, swept over sizes."""
