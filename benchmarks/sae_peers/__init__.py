"""Other libraries' Top-K autoencoders, each run by the Python of its own environment; see `benchmarks/sae_fit.py`."""
