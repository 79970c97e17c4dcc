"""The README's picture: a map, a feature and an intervention, at the moment of an episode where one feature decides.

    python docs/picture.py dqn-mspacman mspacman-sae docs/picture.png

The feature is the one without which the agent would most clearly do something else; the moment is where that is so.
Nothing is chosen by hand.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment
from rl_interp.analysis.playing import watch
from rl_interp.analysis.sae.runs import LoadedSAE, load_autoencoder
from rl_interp.core.envs import make_labelled
from rl_interp.core.hooks import run_with_cache, run_with_hooks
from rl_interp.core.interventions import Add, as_hooks
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.saliency import Advantage, Feature, Target, saliency_map
from rl_interp.saliency.overlay import overlay
from rl_interp.saliency.render import advantages

STEPS, SEED, STRONGEST = 300, 0, 8
_DARK, _INK, _FAINT, _BEFORE, _AFTER = "#121418", "#eceef0", "#8c929a", "#ffb03b", "#40a0ff"


class Found(NamedTuple):
    moment: Moment
    feature: int
    before: np.ndarray
    after: np.ndarray


def draw(agent: Loaded, fitted: LoadedSAE, path: Path) -> None:
    found = decisive(agent, fitted)
    names, chosen, instead = agent.env.action_names, int(found.before.argmax()), int(found.after.argmax())
    figure, axes = new_figure(1, 3, 13, 5.4, width_ratios=(1, 1, 1.15))
    figure.set_facecolor(_DARK)
    targets: list[tuple[Target, str]] = [
        (Advantage(), f"Why {names[chosen]}? Red speaks for it, blue against"),
        (Feature(fitted.hook, fitted.sae.encode, found.feature), f"Feature {found.feature}: what makes it fire"),
    ]
    for axis, (target, title) in zip(axes[0], targets, strict=False):
        axis.imshow(_mapped(agent, found.moment, target), aspect="auto")
        axis.set_axis_off()
        axis.set_title(title, color=_INK, fontsize=11)
    axis, rows = axes[0, 2], np.arange(len(names))
    axis.barh(rows - 0.2, found.before, 0.4, color=_BEFORE, label="as it is")
    axis.barh(rows + 0.2, found.after, 0.4, color=_AFTER, label=f"without feature {found.feature}")
    axis.set_yticks(rows, names, color=_INK)
    axis.invert_yaxis()
    axis.axvline(0, color=_FAINT, linewidth=0.8)
    axis.tick_params(colors=_FAINT, labelcolor=_INK)
    axis.set_facecolor(_DARK)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("advantage", color=_FAINT)
    axis.set_title(f"Without it: {names[instead]}", color=_INK, fontsize=11)
    axis.legend(facecolor=_DARK, edgecolor=_FAINT, labelcolor=_INK, fontsize=9)
    save_figure(figure, path)


def decisive(agent: Loaded, fitted: LoadedSAE) -> Found:
    """The moment and feature of which the loss changes the action by the largest margin."""
    best, most = None, 0.0
    for moment in watch(agent, make_labelled(agent.env), STEPS, None, SEED):
        obs, before = torch.from_numpy(moment.obs[None]), advantages(moment.preferences)
        with torch.no_grad():
            _, cache = run_with_cache(agent.agent, obs, names=[fitted.hook])
            active = fitted.sae.encode(cache[fitted.hook])[0]
        for feature in active.topk(STRONGEST).indices.tolist():
            without = Add(fitted.hook, direction=fitted.sae.W_dec[feature].detach(), scale=-float(active[feature]))
            with torch.no_grad():
                out = run_with_hooks(agent.agent, obs, hooks=as_hooks([without]))
            after = advantages(out.preferences[0].numpy())
            margin = float(after.max() - after[before.argmax()])
            if margin > most:
                best, most = Found(moment, feature, before, after), margin
    assert best is not None, "no single feature decides"
    return best


def _mapped(agent: Loaded, moment: Moment, target: Target) -> np.ndarray:
    [found] = saliency_map(agent.agent, torch.from_numpy(moment.obs[None]), target)
    size = 3 * moment.screen.shape[0], 3 * moment.screen.shape[1]
    return overlay(moment.screen, found, float(np.quantile(np.abs(found), 0.995)), size, moment.observed)


if __name__ == "__main__":
    dictionary = load_autoencoder(sys.argv[2])
    draw(dictionary.agent, dictionary, Path(sys.argv[3]))
