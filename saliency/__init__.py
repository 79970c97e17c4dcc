"""Where an agent looks: maps by `methods` of explicit `targets`, checked by `evaluation` and drawn by `render`."""

from rl_interp.saliency.evaluation.randomisation import randomisation_check, randomised
from rl_interp.saliency.inputs import Inputs
from rl_interp.saliency.methods import METHODS, Method, is_signed, saliency_map
from rl_interp.saliency.methods.entities import Entities, Scene
from rl_interp.saliency.methods.gradients import Gradient, GuidedBackprop, InputGradient, SmoothGrad
from rl_interp.saliency.methods.integrated import IntegratedGradients
from rl_interp.saliency.methods.layers import LRP, GradCAM
from rl_interp.saliency.methods.occlusion import RISE, SARFA, Occlusion
from rl_interp.saliency.methods.perturbation import GREYDANUS, Ablation, Perturbation
from rl_interp.saliency.methods.vectors import VECTOR_METHODS, Resample
from rl_interp.saliency.render import Bars, Beside, Frame, Panel, compose
from rl_interp.saliency.targets import (
    Advantage,
    Chosen,
    Feature,
    LogProbability,
    PolicyChange,
    Preference,
    Target,
    Value,
    ValueChange,
    default_target,
    parse_target,
)
from rl_interp.saliency.through_time import Later, maps_through_time
from rl_interp.saliency.tracks import Tracks

__all__ = [
    "GREYDANUS",
    "LRP",
    "METHODS",
    "RISE",
    "SARFA",
    "VECTOR_METHODS",
    "Ablation",
    "Advantage",
    "Bars",
    "Beside",
    "Chosen",
    "Entities",
    "Feature",
    "Frame",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "InputGradient",
    "Inputs",
    "IntegratedGradients",
    "Later",
    "LogProbability",
    "Method",
    "Occlusion",
    "Panel",
    "Perturbation",
    "PolicyChange",
    "Preference",
    "Resample",
    "Scene",
    "SmoothGrad",
    "Target",
    "Tracks",
    "Value",
    "ValueChange",
    "compose",
    "default_target",
    "is_signed",
    "maps_through_time",
    "parse_target",
    "randomisation_check",
    "randomised",
    "saliency_map",
]
