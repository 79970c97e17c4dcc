"""Sparse autoencoders on an agent's activations: fit, measure, understand, splice in, export."""

from sae.data import Activations, ArrayActivations, Paired, split_by_episode
from sae.export import load, rebuild, save
from sae.hub import pull, push
from sae.measure.baselines import random_dictionary
from sae.measure.coverage import Coverage, both_signs, coordinates, coverage
from sae.measure.effects import ClampEffect, ClampFeature, clamp_effects, direct_effects, integrated_effects, splice
from sae.measure.features import ConceptMatch, Features, Neighbour, best_per_concept, match_concepts, neighbours
from sae.measure.matching import Matching, match
from sae.measure.metrics import (
    Encoding,
    Metrics,
    action_agreement,
    encode_rows,
    evaluate,
    generality,
    largest_cosines,
    policy_kl,
    q_nmse,
    return_recovered,
)
from sae.measure.statements import Outcome, Statement, States, foretell, judge
from sae.model import SAE, JumpReLU, TopK
from sae.training.config import SAEConfig
from sae.training.diagnosis import Diagnosis, diagnose
from sae.training.feed import Feed
from sae.training.trainer import Trainer, fit, fit_all
from sae.training.whiten import Whitened, Whitening

__all__ = [
    "SAE",
    "Activations",
    "ArrayActivations",
    "ClampEffect",
    "ClampFeature",
    "ConceptMatch",
    "Coverage",
    "Diagnosis",
    "Encoding",
    "Features",
    "Feed",
    "JumpReLU",
    "Matching",
    "Metrics",
    "Neighbour",
    "Outcome",
    "Paired",
    "SAEConfig",
    "Statement",
    "States",
    "TopK",
    "Trainer",
    "Whitened",
    "Whitening",
    "action_agreement",
    "best_per_concept",
    "both_signs",
    "clamp_effects",
    "coordinates",
    "coverage",
    "diagnose",
    "direct_effects",
    "encode_rows",
    "evaluate",
    "fit",
    "fit_all",
    "foretell",
    "generality",
    "integrated_effects",
    "judge",
    "largest_cosines",
    "load",
    "match",
    "match_concepts",
    "neighbours",
    "policy_kl",
    "pull",
    "push",
    "q_nmse",
    "random_dictionary",
    "rebuild",
    "return_recovered",
    "save",
    "splice",
    "split_by_episode",
]
