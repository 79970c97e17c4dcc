"""Crafter (Hafner 2021, arXiv 2109.06780), reproducible and compiled where it was slow."""
