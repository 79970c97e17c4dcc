"""The report of an autoencoder, and the comparison of two: HTML files with figures, controls and features."""

from rl_interp.app.report.build import build
from rl_interp.app.report.comparison import compare, summary
from rl_interp.app.report.page import write_page

__all__ = ["build", "compare", "summary", "write_page"]
