"""Sparse autoencoders on an agent's activations: fit, measure, understand, splice in, export."""

from sae.config import SAEConfig
from sae.data import Activations, ArrayActivations, split_by_episode
from sae.effects import ClampEffect, ClampFeature, clamp_effects, direct_effects, splice
from sae.export import load, save
from sae.features import ConceptMatch, Features, best_per_concept, match_concepts
from sae.metrics import (
    Encoding,
    Metrics,
    action_agreement,
    encode_rows,
    evaluate,
    policy_kl,
    q_nmse,
    return_recovered,
)
from sae.model import TopK
from sae.trainer import Trainer, fit
from sae.whiten import Whitened, Whitening

__all__ = [
    "Activations",
    "ArrayActivations",
    "ClampEffect",
    "ClampFeature",
    "ConceptMatch",
    "Encoding",
    "Features",
    "Metrics",
    "SAEConfig",
    "TopK",
    "Trainer",
    "Whitened",
    "Whitening",
    "action_agreement",
    "best_per_concept",
    "clamp_effects",
    "direct_effects",
    "encode_rows",
    "evaluate",
    "fit",
    "load",
    "match_concepts",
    "policy_kl",
    "q_nmse",
    "return_recovered",
    "save",
    "splice",
    "split_by_episode",
]
