"""Where an agent looks: attribution maps with an explicit target, their controls, pictures and videos."""

from rl_interp.saliency.methods.gradients import Gradient, IntegratedGradients
from rl_interp.saliency.methods.maps import METHODS, randomisation_check, randomised, saliency_map
from rl_interp.saliency.methods.perturbation import GREYDANUS, Ablation, Perturbation
from rl_interp.saliency.render import Frame, Panel, compose
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
