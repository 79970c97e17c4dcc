"""The report of an autoencoder: one HTML file with its figures, controls and features."""

from rl_interp.app.report.build import build
from rl_interp.app.report.page import write_report

__all__ = ["build", "write_report"]
