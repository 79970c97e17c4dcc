"""Where an agent looks: maps by `methods` of explicit `targets`, checked by `evaluation` and drawn by `render`."""

from rl_interp.saliency.evaluation.randomisation import randomisation_check, randomised
from rl_interp.saliency.inputs import Inputs
from rl_interp.saliency.methods import METHODS, Method, is_signed, saliency_map
from rl_interp.saliency.methods.gradients import Gradient, IntegratedGradients
from rl_interp.saliency.methods.perturbation import GREYDANUS, Ablation, Perturbation
from rl_interp.saliency.methods.vectors import VECTOR_METHODS, Resample
from rl_interp.saliency.render import Bars, Frame, Panel, compose
from rl_interp.saliency.targets import (
    Advantage,
    Chosen,
    Feature,
    PolicyChange,
    Preference,
    Target,
    Value,
    ValueChange,
    parse_target,
)

__all__ = [
    "GREYDANUS",
    "METHODS",
    "VECTOR_METHODS",
    "Ablation",
    "Advantage",
    "Bars",
    "Chosen",
    "Feature",
    "Frame",
    "Gradient",
    "Inputs",
    "IntegratedGradients",
    "Method",
    "Panel",
    "Perturbation",
    "PolicyChange",
    "Preference",
    "Resample",
    "Target",
    "Value",
    "ValueChange",
    "compose",
    "is_signed",
    "parse_target",
    "randomisation_check",
    "randomised",
    "saliency_map",
]
