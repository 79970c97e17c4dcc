"""Where an agent looks: attribution maps with an explicit target, their controls, pictures and videos."""

from saliency.gradients import Gradient, IntegratedGradients
from saliency.methods import METHODS, randomisation_check, randomised, saliency_map
from saliency.perturbation import Perturbation
from saliency.render import Frame, Panel, compose, write_png
from saliency.targets import Advantage, Chosen, Feature, Preference, Target, Value, parse_target
from saliency.video import check_video, write_video

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
    "check_video",
    "compose",
    "parse_target",
    "randomisation_check",
    "randomised",
    "saliency_map",
    "write_png",
    "write_video",
]
