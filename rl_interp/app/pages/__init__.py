"""Pages of an autoencoder and of two compared: data that analyses made, in HTML files that need nothing else."""

from rl_interp.app.pages.page import write_page

__all__ = ["write_page"]
