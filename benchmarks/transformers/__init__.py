"""Experiments on transformers: what `docs/results/transformers.md` reports."""
