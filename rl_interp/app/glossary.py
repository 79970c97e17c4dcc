"""Every term of every command's result, in a line each: the one place that explains them, for `--explain`."""

from collections.abc import Iterator
from typing import Any

_INTERVAL = "95% interval of {}; none where values are too few, or do not differ"
TERMS = {
    # runs and files
    "run": "directory of the run that this is about, or that was made",
    "other": "directory of the second run",
    "step": "environment steps after which the checkpoint was saved",
    "weights_sha256": "checksum of the weights, by which a result says what it was made from",
    "made_from": "checksums of the agent, activations and dictionary that the figures are of",
    "store": "directory of the stored activations",
    "table": "the same as a table, in Markdown",
    "plot": "picture of the same",
    "result": "the same in full, as a JSON file or as rows",
    "report": "page to open in a browser, one file that needs nothing else",
    "page": "page to open in a browser, one file that needs nothing else",
    "paths": "what to look at",
    "video": "the film",
    "still": "one frame of the film, or a row of them, as a picture",
    "picture": "the picture that was drawn",
    "pictures": "a picture of each layer",
    "sheet": "picture of some states through all layers",
    "sae": "the dictionary: its run or directory, or its figures",
    "repo": "repository on the hub",
    "folder": "folder in the repository",
    "commit": "what was uploaded, as the hub names it",
    # training and playing
    "agent": "the agent: its kind, or its scores",
    "agents": "a row for each agent",
    "env": "the environment's id",
    "condition": "how a training differs from the others of its study",
    "seeds": "number of trainings of this condition",
    "seed": "what everything random follows from",
    "agent_steps": "environment steps (one action each) of the training so far",
    "env_frames": "frames of the emulator so far: steps times the frame skip",
    "updates": "gradient steps of the training so far",
    "steps_per_second": "environment steps a second in this call",
    "evaluation": "scores of whole episodes after the training",
    "episodes": "number of whole episodes",
    "returns": "undiscounted, unclipped return of each episode",
    "mean": "mean return",
    "iqm": "interquartile mean of the returns: of the middle half",
    "interval": _INTERVAL.format("the interquartile mean, by bootstrap, or of the figure above it"),
    "length_mean": "mean length of an episode in steps",
    "success_rate": "share of episodes with a return above 0",
    "crafter_score": "Crafter's score: geometric mean of the achievements' success rates, in percent",
    "achievements": "share of episodes in which each achievement was unlocked",
    "achievements_intervals": _INTERVAL.format("each share, after Wilson"),
    "protocol": "settings under which the episodes were played",
    "difference": "how much more than the control, or than the condition base",
    "excludes_zero": "whether the interval of the difference lies on one side of 0",
    "size": "named size of the network",
    "channels": "channels of the network's blocks; in a search, what was found among a layer's channels",
    "parameters": "number of weights",
    "kind": "kind of agent",
    "hook_points": "layers that can be read and changed, by name",
    "checked": "largest difference to the outputs of the agent's own library; none if it was not compared",
    # activations and dictionaries
    "hook": "hook point: the layer, by name",
    "columns": "what is stored beside each activation",
    "samples": "activations: stored, measured, or seen by the fit (passes count)",
    "samples_per_second": "samples that the fit saw in a second",
    "variant": "what decides which latents are active",
    "latents": "width of the dictionary",
    "k": "latents that are active in a sample",
    "d_in": "width of the layer",
    "d_sae": "width of the dictionary: its number of latents",
    "fvu": "fraction of variance unexplained by the reconstruction, on held-out episodes; 0 is perfect, 1 is the mean",
    "train_fvu": "the same on the episodes that were fitted",
    "l0": "number of latents active in a sample, mean",
    "dead_fraction": "share of latents that never fire",
    "ultra_rare_fraction": "share of latents that fire in fewer than one in 10,000 samples",
    "dense_fraction": "share of latents that fire in more than a tenth of the samples",
    "dense_50_fraction": "share of latents that fire in more than half of the samples",
    "decoder_cosine": "how alike directions are: largest cosine with a different latent's, mean over latents",
    "generality": "share of held-out episodes in which a latent fires, mean over living latents",
    "one_episode_fraction": "share of living latents that fire in a single held-out episode",
    "action_agreement": "share of states in which the agent prefers the same action through the dictionary",
    "q_nmse": "error of the Q-values through the dictionary, as a share of their variance",
    "policy_kl": "KL divergence in nats from the policy to that through the dictionary, mean",
    "ablated": "the same with the layer at zero, at its mean, or at its value in a random other state",
    "diagnosis": "what the layer is like as data to fit",
    "gamma": "length of the mean over that of the standard deviation",
    "effective_rank": "number of directions in which the layer varies, counted by variance",
    "width": "number of dimensions of the layer",
    "constant": "dimensions that never vary",
    "duplicates": "dimensions that equal an earlier one but for scale and offset",
    "loudest": "share of the variance along the first principal component",
    "controls": "mean return: as trained, through the dictionary (spliced), and with the layer ablated",
    "return_recovered": "share of the return lost with the layer at zero that the dictionary recovers; 1 is all",
    "return_recovered_mean": "the same against the layer at its mean",
    "return_recovered_resample": "the same against the layer at its value in a random other state",
    "stability": "how alike the features of fits with other seeds are: mean cosine of matched directions",
    "stability_of_samples": "the same for directions that are random samples: what chance gives",
    "stability_of_random": "the same for random directions",
    "coverage": "what the features tell of the environment's ground truth",
    "concepts": "ground-truth concepts, true or false in each state",
    "rates": "share of states in which each concept is true",
    "scores": "a score for each concept or unit; see the name above it",
    "auroc": "how well a feature tells a concept: area under the ROC curve; 0.5 is chance, 1 perfect",
    "f1": "how well a feature above a threshold detects a concept: mean of precision and recall, harmonic",
    "probe": "AUROC of a logistic regression on all features",
    "means": "means over concepts, for what was fitted and for the controls",
    # features
    "first": "of the first run's features",
    "second": "of the second run's features",
    "living": "number of features that fire",
    "best_mean": "correlation of a feature with its best match in the other dictionary, mean",
    "best_mean_by_chance": "the same after the other's samples are shifted in time",
    "alike": "share of features that have a match in the other dictionary",
    "alike_by_chance": "the same after the other's samples are shifted in time",
    "summary": "how many hypotheses passed, beside those of a random dictionary",
    "outcomes": "what became of each hypothesis on held-out states",
    "hypothesis": "feature, what it is set to, actions, and whether they should become more or less likely",
    "feature": "number of the feature",
    "passed": "whether the interval of the difference lies on the claimed side of 0; in a summary, how many",
    "exceeds": "share of random directions of the same length that change the actions less than the feature",
    "before": "probability of the actions before the intervention",
    "after": "probability of the actions after the intervention",
    "effect": "how much the actions' probability changes when the feature is set",
    "control": "the same for random directions of the same length",
    "value": "the figure; of an intervention, what the unit is set to",
    "dose": "values of the feature, each with its effect",
    # saliency, imagination, maps and mazes
    "frames": "number of frames of the film",
    "first_step": "step of the episode that the film begins with",
    "method": "the saliency method",
    "states": "number of states",
    "information": "adjusted mutual information of clusters and ground truth; 0 is chance, 1 the same partition",
    "methods": "scores of each method, on the agent and on the same with its weights shuffled",
    "target": "what the maps explain",
    "spearman_with_shuffled_weights": "how alike maps are to those of the agent with shuffled weights; near 0 is good",
    "context": "number of frames that the model observed first",
    "horizon": "number of steps that it imagined",
    "interventions": "what was held at which value in the second future",
    "futures": "what was imagined, with and without interventions",
    "picture_error_observed": "mean difference of the pictures from what happened, of 1, while the model observes",
    "picture_error_imagined": "the same for each imagined step",
    "expected_rewards": "the model's reward for each imagined step",
    "policy_mean": "mean probability of each action over the imagined steps",
    "latent": "how the latent is used over the episode",
    "steps": "number of steps",
    "surprise_mean": "KL divergence of posterior to prior in nats, mean over steps: what observing adds",
    "classes_used_mean": "classes that a categorical of the latent takes, mean",
    "constant_categoricals": "number of categoricals that always take one class",
    "saturated_units": "share of the GRU's units that are at ±1 throughout",
    "side": "cells along the maze's side",
    "mazes": "number of mazes",
    "cells": "number of cells from which the agent was asked what it would do",
    "region": "cells along the side of the region that the cheese was in; 0 for anywhere",
    "p_cheese": "share of choices that go to the cheese, of those where its way and the corner's part",
    "p_corner": "share of choices that go to the corner, of those where its way and the cheese's part",
    "p_corner_without_cheese": "share of episodes without cheese that end at the corner",
    "at_decision_square": "share of episodes that come to where the ways to cheese and corner part",
    "by_side": "share of choices that go to the cheese, by the maze's side",
    "regression": "logistic regression of the choice on distances: coefficients per standard deviation",
    "low": "lower end of the 95% interval",
    "high": "upper end of the 95% interval",
    "count": "number of cases",
    "way": "AUROC with which |map| tells cells on the way to the cheese from the others",
    "cheese": "change of the probability of a step towards the cheese; of maps, share of cells marked less than it",
    "corner": "change of the probability of a step towards the corner",
    "mouse": "share of cells that the map marks less than the mouse's",
    "vectors": "effects of adding cheese and corner vectors, by their scale, beside random ones",
    "searches": "units that say where the cheese is, searched on some mazes and tested on others",
    "found": "the units found, best first",
    "held_out": "effects of editing the units found, random others, and all, on held-out mazes",
    "played": "share of whole episodes' choices that go to the cheese, under each intervention",
    # self-ablation
    "of": "the checkpoint and the settings that the figures are of",
    "self_ablation": "units of each layer that the ablated stream keeps; 0 for an agent without one",
    "conditions": "mean return of the agent, of its ablated stream, and of controls, on the same episodes",
    "active": "share of a layer's units above 0, mean over steps",
    "dictionaries": "dictionaries by layer and by number of active latents",
    "bits": "units of each layer that win or lose, which probes are given",
    "leak": "share of held-out steps whose action a probe tells, by what it is given",
    # this installation and the demo
    "versions": "versions of this suite, Python and packages",
    "git": "commit of the checkout, if it is one",
    "hardware": "processor, cores, memory and GPU",
    "device": "device that `auto` chooses",
    "bf16": "whether bfloat16 products are used",
    "fast_paths": "fast ways to compute, each tried on known numbers",
    "extras": "optional parts of the installation, and whether they are there",
    "enables": "what each extra is for: pip install 'rl-interp[EXTRA]'",
    "saliency": "the film of saliency maps",
    "seconds": "how long it took",
    "peak_memory_bytes": "the most memory that the process took",
}
"""Text by key; what ends in `_interval` is explained by what it is of."""

NAMES = {
    "ablated": 1, "achievements": 1, "achievements_intervals": 1, "active": 1, "bits": 1, "by_side": 1,
    "conditions": 1, "controls": 1, "dictionaries": 2, "enables": 1,
    "extras": 1, "fast_paths": 1, "futures": 1, "held_out": 1, "information": 3, "leak": 1, "means": 1, "methods": 2,
    "pictures": 1, "played": 1,
    "policy_mean": 1, "regression": 1, "returns": 1, "scores": 1, "searches": 1, "summary": 1, "vectors": 3,
}  # fmt: skip
"""Keys whose values go by names, such as those of conditions or concepts: in how many levels, before terms follow."""

SETTINGS = {"protocol", "of", "made_from", "versions", "git", "hardware", "interventions", "hook_points"}
"""Keys of what is not explained one by one."""


def explained(result: Any) -> Iterator[tuple[str, str | None]]:
    """Each term of a result, once, in its order, and its line; None for one that the glossary lacks."""
    for term in dict.fromkeys(_terms(result)):
        yield term, _line(term)


def _line(term: str) -> str | None:
    if term in TERMS:
        return TERMS[term]
    of = term.removesuffix("_interval")
    return _INTERVAL.format(of) if of != term and of in TERMS else None


def _terms(result: Any, names: int = 0) -> Iterator[str]:
    """Keys at any depth, but for `names` levels of names."""
    if isinstance(result, list):
        for each in result:
            yield from _terms(each, names)
    elif isinstance(result, dict):
        for key, value in result.items():
            if names:
                yield from _terms(value, names - 1)
                continue
            yield key
            if key not in SETTINGS:
                yield from _terms(value, NAMES.get(key, 0))
