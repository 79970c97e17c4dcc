"""Where an agent looks: attribution maps with an explicit target, their controls, pictures and videos."""

from saliency.gradients import Gradient, IntegratedGradients
from saliency.methods import METHODS, randomisation_check, randomised, saliency_map
from saliency.perturbation import Perturbation
from saliency.render import Frame, Panel, compose
from saliency.targets import Advantage, Chosen, Feature, Preference, Target, Value, parse_target

__all__ = [
    "METHODS",
    "Advantage",
    "Chosen",
    "Feature",
    "Frame",
    "Gradient",
    "IntegratedGradients",
    "Panel",
    "Perturbation",
    "Preference",
    "Target",
    "Value",
    "compose",
    "parse_target",
    "randomisation_check",
    "randomised",
    "saliency_map",
]
