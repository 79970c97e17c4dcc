"""Transformers on tokens: network, agent and training."""

from rl_interp.agents.transformer.agent import Transformer, make_agent
from rl_interp.agents.transformer.config import Architecture, TransformerConfig, default_config
from rl_interp.agents.transformer.training import Training, train

__all__ = ["Architecture", "Training", "Transformer", "TransformerConfig", "default_config", "make_agent", "train"]
