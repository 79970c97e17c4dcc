"""When, and where in the network, a diffusion policy decides between two equally good ways.

Everything is asked of an episode's first decision, in `rl_interp/TwoWays-v0`, where the way is the sign of the action's
second number, and at guidance 1, so that there is one pass of the network in each denoising step. Decisions that are
compared start from the same noise.

- **Swapped goals**: from a denoising step on, the network is told the other goal. How many go the other way says how
far the goal can still decide at that noise level.
- **Patches**: in one denoising step, what a layer holds at one place of the sequence is replaced by what it held there
  under the other goal. The effect is the share of the way from one action's second number to the other's. The control
  patches from a run with the same goal and other noise of the states.
- **Probes**: where the goal leaves the way open, how well the way that is taken in the end can be read from the
action's place, by step and layer, beside probes of the noised action itself, of a network with shuffled weights, and of
  shuffled labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl_interp.agents.beso import BESO
from rl_interp.agents.beso.network import GOAL
from rl_interp.agents.load import Loaded
from rl_interp.analysis.denoising.samplers import diffusion, folder_of
from rl_interp.analysis.probes.regression import probe
from rl_interp.core.agent import State
from rl_interp.core.envs import TwoWaysConfig, make_vector
from rl_interp.core.envs.labelled import Concept
from rl_interp.core.envs.two_ways.config import POINTS, entropy
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.files import write_json, write_text
from rl_interp.core.hooks import Site, run_with_cache, run_with_hooks
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.progress import SILENT, Progress
from rl_interp.core.stats import bootstrap, plain, wilson
from rl_interp.core.tables import markdown
from rl_interp.saliency import randomised

PLACES = {"goal": GOAL, "state": GOAL + 1, "action": GOAL + 2}
"""Places of the sequence that the first decision reads, besides the noise level's."""
_WAY = {"way": Concept("the first action leads above the post")}
_SHUFFLES = 10
_FEWEST = 40
"""Decisions that must go each way, so that some are in what is fitted and in what is scored."""


@dataclass(frozen=True)
class Decisions:
    """First decisions of N episodes: what is seen `[N, 4]`, and the state that holds their noise."""

    obs: Tensor
    state: State

    def told(self, goal: str) -> Tensor:
        """The same, with another goal."""
        return torch.cat([self.obs[:, :2], torch.tensor(POINTS[goal]).to(self.obs).expand(len(self.obs), 2)], 1)


def decide_ways(
    loaded: Loaded, states: int = 400, steps: int = 10, seed: int = 0, progress: Progress = SILENT
) -> dict[str, Any]:
    """Say when and where the way is decided. Writes a table, a picture and the result to the run's analyses/, and
    returns the result with their paths.

    Args:
        states: first decisions to look at.
        steps: denoising steps to decide in, by Euler.
        seed: of the starts, the noise, the probes' split and the controls.

    Raises:
        UserError: an agent that does not denoise, or is not of two ways; or too few states.
    """
    agent = diffusion(loaded)
    if not isinstance(loaded.env, TwoWaysConfig):
        raise UserError(f"an agent of {loaded.env.id} given; when a way is decided is asked of rl_interp/TwoWays-v0.")
    at_least_one(states=states, steps=steps)
    own = agent.sampling
    try:
        agent.sampling = replace(own, sampler="euler", steps=steps, guidance=1.0, churn=0.0)
        decisions = decisions_of(loaded, states, seed)
        layers = ["embed", *(f"block{number}.sum" for number in range(agent.config.layers))]
        result = loaded.source | {
            "states": states, "seed": seed, "sigmas": agent.sampling.levels, "layers": layers,
            "ways": _ways(agent, decisions), "swapped": _swapped(agent, decisions, progress),
            "patched": _patched(agent, decisions, layers, seed, progress),
            "probed": _probed(agent, decisions, layers, seed, progress),
            "compared": _compared(agent, decisions, layers),
        }  # fmt: skip
    finally:
        agent.sampling = own
    folder = folder_of(loaded)
    write_json(folder / "decide.json", result)
    write_text(folder / "decide.md", deciding_table(result))
    picture = deciding_picture([result], folder / "decide.png")
    return result | {
        "table": str(folder / "decide.md"), "plot": str(picture), "result": str(folder / "decide.json"),
    }  # fmt: skip


def decisions_of(loaded: Loaded, states: int, seed: int) -> Decisions:
    """As the environment starts, each with noise of its own."""
    agent, env = loaded.agent, make_vector(loaded.env, states)
    obs = torch.from_numpy(env.reset(seed)).to(agent.device)
    return Decisions(obs, agent.reseeded(agent.initial_state(states), np.random.default_rng(seed)))


def _ways(agent: BESO, decisions: Decisions) -> dict[str, Any]:
    """The share that goes above, by what is asked, with the entropy of the ways where nothing says which."""
    found = {}
    for goal in POINTS:
        above = _height(agent, decisions.told(goal), decisions.state) > 0
        rate = wilson(above.numpy())
        found[goal] = {"above": rate.value, "interval": plain(rate), "entropy": entropy(rate.value)}
    return found


@torch.no_grad()
def _height(agent: BESO, obs: Tensor, state: State, hooks: dict[str, Any] | None = None) -> Tensor:
    """`[N]`: the second number of the first action."""
    actions = run_with_hooks(agent, obs, state, hooks=hooks or {}).actions
    assert actions is not None
    return actions[:, 1].cpu()


def _swapped(agent: BESO, decisions: Decisions, progress: Progress) -> list[dict[str, Any]]:
    """By the denoising step from which the other goal is told, the share that goes the way of the first; the last is
    without a swap."""
    steps, rows = agent.sampling.steps, []
    with torch.no_grad():
        held = {
            goal: run_with_cache(agent, decisions.told(goal), decisions.state, names=["embed"])[1]["embed"][
                0, 0, :, GOAL
            ]
            for goal in ("above", "below")
        }
    with progress.bar("Swapping goals", steps + 1, "steps") as update:
        for start in range(steps + 1):
            kept = []
            for goal, other in (("above", "below"), ("below", "above")):

                def swap(value: Tensor, site: Site, start: int = start, other: str = other) -> Tensor:
                    if site.tick >= start:
                        value[:, GOAL] = held[other]
                    return value

                height = _height(agent, decisions.told(goal), decisions.state, {"embed": swap})
                kept.append((height > 0 if goal == "above" else height < 0).numpy())
            rate = wilson(np.concatenate(kept))
            rows.append({"from": start, "first_goal": rate.value, "interval": plain(rate)})
            update(start + 1)
    return rows


def _patched(
    agent: BESO, decisions: Decisions, layers: Sequence[str], seed: int, progress: Progress
) -> list[dict[str, Any]]:
    """The effect of patches, by place, layer and denoising step, with the control's."""
    steps, rows = agent.sampling.steps, []
    above, below = (decisions.told(goal) for goal in ("above", "below"))
    at = {goal: _height(agent, obs, decisions.state) for goal, obs in (("above", above), ("below", below))}
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(above)))
    with torch.no_grad():
        other = run_with_cache(agent, below, decisions.state, names=list(layers))[1]
        same = run_with_cache(agent, above, decisions.state, names=list(layers))[1]
    gap = at["below"] - at["above"]
    clear = gap.abs() > 0.25 * gap.abs().median()  # a share of next to nothing says nothing
    with progress.bar("Patching", len(layers) * steps, "layers and steps") as update:
        for layer in layers:
            for step in range(steps):
                for place, index in PLACES.items():
                    effects = []
                    for source in (other[layer][0, step], same[layer][0, step][order]):

                        def patch(value: Tensor, site: Site, source: Tensor = source, index: int = index) -> Tensor:
                            value[:, index] = source[:, index]
                            return value

                        height = _height(agent, above, decisions.state, {f"{layer}@{step}": patch})
                        effects.append(((height - at["above"]) / gap)[clear].double().numpy())
                    effect = bootstrap([effects[0]], statistic=_mean, resamples=200)
                    rows.append({
                        "layer": layer, "step": step, "place": place, "effect": effect.value,
                        "interval": plain(effect), "control": float(effects[1].mean()),
                    })  # fmt: skip
                update(len(rows) // len(PLACES))
    return rows


def _mean(values: NDArray[np.float64], axis: int = -1) -> Any:
    return np.mean(values, axis=axis)


def _probed(
    agent: BESO, decisions: Decisions, layers: Sequence[str], seed: int, progress: Progress
) -> list[dict[str, Any]]:
    """AUROC of the way that is taken, where the goal leaves it open, by what is read and denoising step."""
    obs = decisions.told("end")
    labels = {"way": (_height(agent, obs, decisions.state) > 0).numpy().astype(np.float64)}
    fewer = min(labels["way"].sum(), len(obs) - labels["way"].sum())
    if fewer < _FEWEST:
        raise UserError(
            f"{fewer:.0f} of {len(obs)} decisions go one of the two ways, and probes of it need {_FEWEST}; look at "
            "more (--states), or at a checkpoint that keeps both ways."
        )
    control = randomised(agent, seed)
    assert isinstance(control, BESO)
    control.sampling = agent.sampling
    names, episodes, rows = ["noised", *layers], np.arange(len(obs)), []
    with torch.no_grad():
        cache = run_with_cache(agent, obs, decisions.state, names=names)[1]
        values = {name: cache[name][0, :, :, PLACES["action"] if name != "noised" else 0] for name in names}
        # The shuffled network reads the same noised actions, which its own sampling would not lead to.
        kept = cache["noised"][0]
        again = run_with_cache(
            control, obs, decisions.state, names=layers, hooks={"noised": lambda value, site: kept[site.tick]}
        )[1]
    last = layers[-1]
    values["shuffled weights"] = again[last][0, :, :, PLACES["action"]]
    with progress.bar("Probing", len(values) * agent.sampling.steps, "layers and steps") as update:
        for name, value in values.items():
            for step in range(agent.sampling.steps):
                read = value[step].double().cpu().numpy()
                score = probe(read, labels, _WAY, episodes, seed)
                row = {"read": name, "step": step, "auroc": score["way"].value, "interval": plain(score["way"])}
                if name == last:
                    row["shuffled_labels"] = probe(read, labels, _WAY, episodes, seed, _SHUFFLES)["way"].value
                rows.append(row)
                update(len(rows))
    return rows


@torch.no_grad()
def _compared(agent: BESO, decisions: Decisions, layers: Sequence[str]) -> list[dict[str, Any]]:
    """How much the goal changes of what the action's place holds, relative to its size, beside how much other noise
    changes it: ‖h_c − h_u‖ / ‖h_u‖, of the conditional and the unconditional policy on the same noised actions."""
    guided, rows = agent.sampling, []
    try:
        agent.sampling = replace(guided, guidance=1.5)
        names = [prefix + layer for layer in layers for prefix in ("", "unconditional.")]
        cache = run_with_cache(agent, decisions.told("above"), decisions.state, names=names)[1]
    finally:
        agent.sampling = guided
    for layer in layers:
        told, free = (cache[prefix + layer][0, :, :, PLACES["action"]] for prefix in ("", "unconditional."))
        for step in range(guided.steps):
            size = free[step].norm(dim=-1).mean()
            rows.append({
                "layer": layer, "step": step, "goal": float((told[step] - free[step]).norm(dim=-1).mean() / size),
                "noise": float((free[step] - free[step].roll(1, 0)).norm(dim=-1).mean() / size),
            })  # fmt: skip
    return rows


def deciding_table(result: dict[str, Any]) -> str:
    """A row a denoising step, in Markdown."""
    layers = result["layers"]
    last = layers[-1]
    patched = {(row["layer"], row["step"], row["place"]): row for row in result["patched"]}
    probed = {(row["read"], row["step"]): row for row in result["probed"]}
    rows = []
    for step, sigma in enumerate(result["sigmas"]):
        goal, action = patched["embed", step, "goal"], patched[last, step, "action"]
        rows.append([
            step, f"{sigma:.3f}", f"{result['swapped'][step]['first_goal']:.2f}",
            *(f"{row['effect']:.2f} ({row['control']:.2f})" for row in (goal, action)),
            *(f"{probed[read, step]['auroc']:.2f}" for read in ("noised", last, "shuffled weights")),
        ])  # fmt: skip
    return markdown(
        [
            "step", "σ", "first goal's way, if swapped from here", "patch of the goal (control)",
            f"patch of {last} at the action (control)", "way read from the noised action", f"from {last}",
            "from shuffled weights",
        ],
        rows,
    )  # fmt: skip


def deciding_picture(results: Sequence[dict[str, Any]], path: Any) -> Any:
    """Swapped goals, patches and probes by noise level, of one run or the mean of several."""
    figure, axes = new_figure(1, 3, 15, 4.4)
    sigmas, layers = results[0]["sigmas"], results[0]["layers"]
    swaps = np.array([[row["first_goal"] for row in result["swapped"][:-1]] for result in results])
    axes[0, 0].plot(sigmas, swaps.T, color="0.75", linewidth=1)
    axes[0, 0].plot(sigmas, swaps.mean(0), "o-", color="black")
    axes[0, 0].set(
        title="the other goal is told from here on", ylabel="share that goes the first goal's way", ylim=(-0.03, 1.03)
    )
    for place, style in (("goal", "--"), ("state", ":"), ("action", "-")):
        for number, layer in enumerate(layers):
            effect = np.mean(
                [[r["effect"] for r in result["patched"] if (r["layer"], r["place"]) == (layer, place)] for result in
                results], 0 )  # fmt: skip
            axes[0, 1].plot(sigmas, effect, style, color=f"C{number}", label=f"{layer}, {place}")
    controls = np.mean([[r["control"] for r in result["patched"] if r["place"] == "action" and r["layer"] == layers[-1]]
                        for result in results], 0)  # fmt: skip
    axes[0, 1].plot(sigmas, controls, "-.", color="black", label="control: same goal")
    axes[0, 1].set(title="patched from the other goal, in one step", ylabel="share of the way to the other action")
    axes[0, 1].legend(fontsize=6, ncol=2)
    for number, read in enumerate(["noised", *layers, "shuffled weights"]):
        score = np.mean([[r["auroc"] for r in result["probed"] if r["read"] == read] for result in results], 0)
        style = {"noised": ("k", ":"), "shuffled weights": ("0.6", "--")}.get(read, (f"C{number - 1}", "-"))
        axes[0, 2].plot(sigmas, score, color=style[0], linestyle=style[1], label=read)
    axes[0, 2].set(title="the way taken, where the goal leaves it open", ylabel="AUROC of a probe", ylim=(0.45, 1.02))
    axes[0, 2].legend(fontsize=7)
    for each in axes.flat:
        each.set_xscale("log")
        each.invert_xaxis()
        each.set_xlabel("noise level σ, from the first step to the last")
    return save_figure(figure, path)
