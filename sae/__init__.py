"""Sparse autoencoders on an agent's activations: fit, measure, understand, splice in, export."""

from rl_interp.sae.crosscoder import Crosscoder, fit_crosscoder, side_by_side
from rl_interp.sae.data import Activations, ArrayActivations, Paired, split_by_episode
from rl_interp.sae.encoding import Encoding, encode_rows
from rl_interp.sae.evaluation.baselines import random_dictionary
from rl_interp.sae.evaluation.coverage import Coverage, both_signs, coordinates, coverage
from rl_interp.sae.evaluation.effects import ClampEffect, clamp_effects, direct_effects, integrated_effects
from rl_interp.sae.evaluation.features import (
    ConceptMatch,
    Features,
    Neighbour,
    best_per_concept,
    match_concepts,
    neighbours,
)
from rl_interp.sae.evaluation.hypotheses import Hypothesis, Outcome, States, evaluate_hypothesis, predictive_features
from rl_interp.sae.evaluation.matching import Matching, match
from rl_interp.sae.evaluation.metrics import (
    Metrics,
    action_agreement,
    density_shares,
    evaluate,
    generality,
    largest_cosines,
    policy_kl,
    q_nmse,
    return_recovered,
)
from rl_interp.sae.export import load, rebuild, save
from rl_interp.sae.hub import pull, push
from rl_interp.sae.interventions import ClampFeature, ScaleFeature, splice
from rl_interp.sae.model import SAE, JumpReLU, TopK
from rl_interp.sae.training.config import SAEConfig
from rl_interp.sae.training.diagnosis import Diagnosis, diagnose
from rl_interp.sae.training.feed import Feed
from rl_interp.sae.training.trainer import Trainer, fit, fit_all
from rl_interp.sae.training.whiten import Whitened, Whitening

__all__ = [
    "SAE",
    "Activations",
    "ArrayActivations",
    "ClampEffect",
    "ClampFeature",
    "ConceptMatch",
    "Coverage",
    "Crosscoder",
    "Diagnosis",
    "Encoding",
    "Features",
    "Feed",
    "Hypothesis",
    "JumpReLU",
    "Matching",
    "Metrics",
    "Neighbour",
    "Outcome",
    "Paired",
    "SAEConfig",
    "ScaleFeature",
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
    "density_shares",
    "diagnose",
    "direct_effects",
    "encode_rows",
    "evaluate",
    "evaluate_hypothesis",
    "fit",
    "fit_all",
    "fit_crosscoder",
    "generality",
    "integrated_effects",
    "largest_cosines",
    "load",
    "match",
    "match_concepts",
    "neighbours",
    "policy_kl",
    "predictive_features",
    "pull",
    "push",
    "q_nmse",
    "random_dictionary",
    "rebuild",
    "return_recovered",
    "save",
    "side_by_side",
    "splice",
    "split_by_episode",
]
