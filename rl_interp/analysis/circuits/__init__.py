"""Circuits of a run's agent: which units and connections its decisions need."""
