"""The report of an autoencoder, and the comparison of two: HTML files with figures, controls and features."""

from rl_interp.analysis.sae.comparison import compare, summary
from rl_interp.analysis.sae.report import build
from rl_interp.app.pages.page import write_page

__all__ = ["build", "compare", "summary", "write_page"]
