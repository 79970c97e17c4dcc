"""Fitting: configuration, data feed, variants, kernels, trainer."""
