"""CBET: the exploration bonus that counts states and changes (Parisi et al. 2021, arXiv 2111.13119)."""

from rl_interp.agents.cbet.bonus import CBET, CBETConfig, default_bonus
from rl_interp.agents.cbet.counts import CountTable, ExactKey, SimHash

__all__ = ["CBET", "CBETConfig", "CountTable", "ExactKey", "SimHash", "default_bonus"]
