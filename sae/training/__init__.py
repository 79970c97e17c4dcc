"""Fitting: configuration, data feed, kinds, kernels, trainer."""
