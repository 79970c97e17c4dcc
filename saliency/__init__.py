"""Where an agent looks: attribution maps with an explicit target, their controls, pictures and videos."""

from saliency.gradients import Gradient, IntegratedGradients
from saliency.methods import METHODS, randomisation_check, randomised, saliency_map
from saliency.perturbation import GREYDANUS, Ablation, Perturbation
from saliency.render import Frame, Panel, compose
from saliency.targets import (
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
    "Ablation",
    "Advantage",
    "Chosen",
    "Feature",
    "Frame",
    "Gradient",
    "IntegratedGradients",
    "Panel",
    "Perturbation",
    "PolicyChange",
    "Preference",
    "Target",
    "Value",
    "ValueChange",
    "compose",
    "parse_target",
    "randomisation_check",
    "randomised",
    "saliency_map",
]
