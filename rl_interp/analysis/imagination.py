"""What a world model expects: films and pictures of imagined futures beside what happened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rl_interp.agents.dreamerv3 import DreamerV3, Imagined, Latent
from rl_interp.agents.load import Loaded
from rl_interp.analysis.player import Moment
from rl_interp.analysis.playing import watch
from rl_interp.core.agent import PolicyOutput, State, evaluating
from rl_interp.core.envs import make_labelled
from rl_interp.core.errors import UserError, at_least_one
from rl_interp.core.hooks import Cache, hook_point, run_with_cache
from rl_interp.core.interventions import During, Intervention, intervened
from rl_interp.core.pictures import font_of, new_figure, save_figure, write_png
from rl_interp.core.progress import SILENT, Progress, Update
from rl_interp.core.video import check_video, write_video

if TYPE_CHECKING:
    from matplotlib.colors import ListedColormap

_SIDE, _MARGIN = 320, 16
_HEADER, _FOOTER = 44, 118
_BACKGROUND = (18, 20, 24)
_INK, _FAINT = (236, 238, 240), (140, 146, 154)
_OBSERVED, _IMAGINED = "#40a060", "#ffb03b"


def imagine(
    loaded: Loaded,
    path: Path,
    context: int = 5,
    horizon: int = 45,
    skip: int = 0,
    seed: int = 0,
    interventions: Sequence[Intervention] = (),
    times: Sequence[int] | None = None,
    free: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Film what a world model imagines of an episode, beside what happened; with pictures of the film's end and of the
    latent over the episode.

    Args:
        path: .mp4 to write; the pictures go beside it.
        context: steps that the model observes first.
        horizon: steps that it then imagines.
        skip: steps of the episode before the first observed one.
        seed: of the episode and of all that is imagined.
        interventions: shown as a further future, with the same random numbers.
        times: imagined steps at which they act, from 0; by default all.
        free: imagined actions are the policy's own, not those that were taken.

    Raises:
        UserError: the agent has no world model, the episode ends too soon, or a name that does not end in .mp4.
        HookError: an intervention at a hook point that is not there.
    """
    held = [During(each, phase="imagine", times=times) for each in interventions]
    for each in held:
        hook_point(loaded.agent, each.at)
    check_video(path)
    agent = _dreamer(loaded)
    moments = _watched(loaded, context + horizon, skip, seed)
    filmed = _film(loaded, agent, moments, path, context, seed, held, free, progress)
    usage = _latent_usage(agent, moments, path.with_name(f"{path.stem}-latent.png"))
    return filmed | {"latent": usage}


@dataclass(frozen=True)
class Dream:
    """H imagined steps after a moment."""

    pictures: NDArray[np.uint8]
    """`[H, h, w, 3]`: decoded."""
    rewards: NDArray[np.float32]
    """`[H]`: expected for arriving there."""
    goes_on: NDArray[np.bool_]
    """`[H]`: whether the episode is expected to go on from there."""


@torch.no_grad()
def dream(
    loaded: Loaded, moment: Moment, actions: Sequence[int], seed: int = 0, interventions: Sequence[Intervention] = ()
) -> Dream:
    """What a world model imagines after it has seen a moment, when it takes some actions, the first of them there.

    Args:
        seed: of what is imagined; equal ones draw equal random numbers.
        interventions: during the imagined steps.

    Raises:
        UserError: the agent has no world model, or no actions are given.
    """
    agent, device = _dreamer(loaded), loaded.agent.device
    at_least_one(actions=len(actions))
    taken = torch.tensor(actions, device=device)[:, None]
    with evaluating(agent):
        seen = agent.step(torch.from_numpy(moment.obs[None]).to(device), moment.state)
        with intervened(agent, [During(each, phase="imagine") for each in interventions]):
            imagined = agent.imagine(seen.state, len(actions), taken, seed=seed)
    ahead = Latent(*(leaf[1:] for leaf in imagined.latent))
    rewards, goes_on = imagined.rewards[:, 0].float().cpu().numpy(), imagined.cont[1:, 0].cpu().numpy() > 0
    return Dream(_pictures(loaded, agent, ahead), rewards, goes_on)


@dataclass(frozen=True)
class _Future:
    """One way the episode goes on: pictures `[T, H, W, 3]` from the first context frame on, and the dream after the
    context (None for what happened)."""

    title: str
    pictures: NDArray[np.uint8]
    dream: Imagined | None = None


def _watched(loaded: Loaded, steps: int, skip: int, seed: int) -> list[Moment]:
    moments = watch(loaded, make_labelled(loaded.env), steps, skip, seed)
    if len(moments) < steps:
        raise UserError(
            f"the episode of seed {seed} has {len(moments)} steps after {skip}, and {steps} were asked for; lower the "
            "horizon or skip less, or give a different seed."
        )
    return moments


def _film(
    loaded: Loaded, agent: DreamerV3, moments: Sequence[Moment], path: Path, context: int, seed: int,
    interventions: Sequence[Intervention], free: bool, progress: Progress,
) -> dict[str, Any]:  # fmt: skip
    """The film of futures imagined after the first `context` moments, and a still of its end."""
    horizon, device = len(moments) - context, agent.device
    truth = np.stack([loaded.env.picture(moment.obs) for moment in moments])
    seen, start = _observed(loaded, agent, moments[:context])
    # The action after the last observed frame leads to the first imagined one.
    taken = torch.tensor([[moment.action] for moment in moments[context - 1 : -1]], device=device)
    actions = None if free else taken
    futures = [_Future("what happened", truth)]
    # Equal seeds draw equal random numbers, so that dreams with and without interventions can be compared.
    for title, chosen in (("imagined", ()), ("imagined, with intervention", interventions)):
        if chosen or title == "imagined":
            with torch.no_grad(), evaluating(agent), intervened(agent, chosen):
                dream = agent.imagine(start, horizon, actions, seed=seed)
            ahead = Latent(*(leaf[1:] for leaf in dream.latent))
            pictures = np.concatenate([seen, _pictures(loaded, agent, ahead)])
            futures.append(_Future(title, pictures, dream))
    rewards = np.diff([moment.episode_return for moment in moments])[context - 1 :]
    frames = list(_frames(loaded, futures, context, rewards, free))
    with progress.bar("Writing video", len(frames), "frames") as update:
        write_video(path, _counted(frames, update), loaded.env.steps_per_second)
    still = write_png(path.with_suffix(".png"), frames[-1])
    return {
        "video": str(path),
        "still": str(still),
        "context": context,
        "horizon": horizon,
        "seed": seed,
        "interventions": [each.config() for each in interventions],
        "futures": {future.title: _figures(future, truth, context, loaded.env.action_names) for future in futures[1:]},
    }


def _latent_usage(agent: DreamerV3, moments: Sequence[Moment], path: Path) -> dict[str, Any]:
    """Plot the latent over moments of an episode: which class each categorical takes, how surprising each is (KL of the
    posterior to the prior), and the GRU's units."""
    _, cache = _followed(agent, moments, ["deter", "posterior", "prior"])
    posterior, prior = cache["posterior"][:, 0], cache["prior"].view_as(cache["posterior"])[:, 0]
    surprise = (posterior.exp() * (posterior - prior)).sum(-1).cpu().numpy()  # [T, S]
    classes, deter = posterior.argmax(-1).cpu().numpy(), cache["deter"][:, 0].cpu().numpy()
    used = [len(np.unique(column)) for column in classes.T]
    _plot_usage(path, classes, surprise, deter, posterior.shape[-1])
    return {
        "plot": str(path),
        "steps": len(moments),
        "surprise_mean": float(surprise.sum(-1).mean()),
        "classes_used_mean": float(np.mean(used)),
        "constant_categoricals": int(sum(count == 1 for count in used)),
        "saturated_units": float((np.abs(deter) > 0.98).all(0).mean()),
    }


def _dreamer(loaded: Loaded) -> DreamerV3:
    if not isinstance(loaded.agent, DreamerV3):
        raise UserError(f"{loaded.run.path} holds an agent without a world model; give a run of dreamerv3.")
    return loaded.agent


def _followed(agent: DreamerV3, moments: Sequence[Moment], names: list[str]) -> tuple[PolicyOutput, Cache]:
    device = agent.device
    obs = torch.from_numpy(np.stack([moment.obs for moment in moments]))[:, None].to(device)
    actions = torch.tensor([[moment.action] for moment in moments], device=device)
    with torch.no_grad():
        return run_with_cache(agent, obs, moments[0].state, names=names, actions=actions, unroll=True)


def _observed(loaded: Loaded, agent: DreamerV3, moments: Sequence[Moment]) -> tuple[NDArray[np.uint8], State]:
    """The model's pictures of the frames that it sees, and its state after the last."""
    out, cache = _followed(agent, moments, ["deter", "stoch"])
    return _pictures(loaded, agent, Latent(cache["deter"], cache["stoch"])), out.state


def _pictures(loaded: Loaded, agent: DreamerV3, latent: Latent) -> NDArray[np.uint8]:
    with torch.no_grad(), evaluating(agent):
        predicted = agent.world_model.picture(latent)[:, 0].cpu().numpy()
    return np.stack([loaded.env.picture(each) for each in predicted])


def _frames(
    loaded: Loaded, futures: Sequence[_Future], context: int, rewards: NDArray[np.float64], free: bool
) -> Iterator[NDArray[np.uint8]]:
    """Panels side by side; beside each dream its difference to what happened, unless its actions were its own."""
    columns = sum(1 if future.dream is None or free else 2 for future in futures)
    width = columns * (_SIDE + _MARGIN) + _MARGIN
    for t in range(len(futures[0].pictures)):
        image = Image.new("RGB", (width, _HEADER + _SIDE + _FOOTER), _BACKGROUND)
        draw, left = ImageDraw.Draw(image), _MARGIN
        for future in futures:
            # The picture, framed in the colour of where it comes from.
            imagined = future.dream is not None and t >= context
            _panel(image, left, future.title, future.pictures[t], _IMAGINED if imagined else _OBSERVED)
            if future.dream is None:
                note = "observed" if t < context else f"{t - context + 1} after the last observed frame"
                draw.text((left, _HEADER + _SIDE + 10), f"frame {t + 1}: {note}", _FAINT, font_of(14))
                if t >= context:
                    draw.text((left, _HEADER + _SIDE + 32), f"reward {rewards[t - context]:+.2f}", _INK, font_of(14))
                left += _SIDE + _MARGIN
                continue
            # What the dream expects, and how far it is from what happened.
            if t >= context:
                _notes(draw, left, future.dream, t - context, loaded.env.action_names)
            left += _SIDE + _MARGIN
            if not free:
                error = np.abs(future.pictures[t].astype(np.int16) - futures[0].pictures[t]).astype(np.uint8)
                _panel(image, left, "difference to what happened", error, None)
                left += _SIDE + _MARGIN
        yield np.asarray(image)


def _panel(image: Image.Image, left: int, title: str, picture: NDArray[np.uint8], frame: str | None) -> None:
    draw = ImageDraw.Draw(image)
    draw.text((left, 14), title, _INK, font_of(16))
    large = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST)
    image.paste(Image.fromarray(large), (left, _HEADER))
    if frame:
        draw.rectangle((left - 2, _HEADER - 2, left + _SIDE + 1, _HEADER + _SIDE + 1), outline=frame, width=2)


def _notes(draw: ImageDraw.ImageDraw, left: int, dream: Imagined, t: int, action_names: Sequence[str]) -> None:
    action = int(dream.actions[t, 0].argmax())
    ended = "" if dream.cont[t + 1, 0] > 0 else ", ended"
    top = _HEADER + _SIDE + 10
    draw.text((left, top), f"after {action_names[action]}{ended}", _FAINT, font_of(14))
    draw.text((left, top + 22), f"reward expected {float(dream.rewards[t, 0]):+.2f}", _INK, font_of(14))
    probs = dream.policy[t + 1, 0].exp().cpu().numpy()
    likely = np.argsort(probs)[::-1][:3]
    for i, index in enumerate(likely):
        text = f"{action_names[index]} {probs[index]:.0%}"
        draw.text((left, top + 44 + 20 * i), text, _INK if i == 0 else _FAINT, font_of(13))


def _figures(future: _Future, truth: NDArray[np.uint8], context: int, action_names: Sequence[str]) -> dict[str, Any]:
    assert future.dream is not None
    error = np.abs(future.pictures.astype(float) - truth).mean((1, 2, 3)) / 255
    policy = future.dream.policy[1:, 0].exp().mean(0).cpu().numpy()
    return {
        "picture_error_observed": float(error[:context].mean()),
        "picture_error_imagined": [round(float(each), 4) for each in error[context:]],
        "expected_rewards": [round(float(each), 4) for each in future.dream.rewards[:, 0]],
        "policy_mean": {name: round(float(p), 4) for name, p in zip(action_names, policy, strict=True)},
    }


def _counted(frames: Sequence[NDArray[np.uint8]], update: Update) -> Iterator[NDArray[np.uint8]]:
    for i, frame in enumerate(frames):
        yield frame
        update(i + 1)


def _plot_usage(path: Path, classes: NDArray[Any], surprise: NDArray[Any], deter: NDArray[Any], count: int) -> None:
    figure, grid = new_figure(4, 1, 10, 9, sharex=True, height_ratios=(1, 2, 2, 2))
    axes = grid[:, 0]
    axes[0].plot(surprise.sum(-1), color="tab:orange", linewidth=1)
    axes[0].set(ylabel="nats", title="surprise: KL of posterior to prior, all categoricals")
    axes[0].spines[["top", "right"]].set_visible(False)
    most = max(1e-3, float(np.quantile(surprise, 0.995)))
    panels = (
        (surprise.T, "surprise of each categorical", "magma", (0, most), "nats"),
        (classes.T, "class that each categorical takes", _class_colours(count), (-0.5, count - 0.5), "class"),
        (deter.T, "units of the GRU's state", "coolwarm", (-1, 1), "value"),
    )
    for axis, (values, title, colours, limits, label) in zip(axes[1:], panels, strict=True):
        shown = axis.imshow(
            values, aspect="auto", interpolation="nearest", cmap=colours, vmin=limits[0], vmax=limits[1]
        )
        axis.set(title=title, ylabel="index")
        axis.yaxis.get_major_locator().set_params(integer=True)
        ticks = range(0, count, -(-count // 8)) if label == "class" else None
        figure.colorbar(shown, ax=axis, label=label, ticks=ticks)
    axes[-1].set(xlabel="step")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)


def _class_colours(count: int) -> "ListedColormap":
    """A colour a class. Classes have no order, so neighbours differ: hues a golden angle apart, three brightnesses."""
    from matplotlib.colors import ListedColormap, hsv_to_rgb

    numbers = np.arange(count)
    hues, brightness = numbers * 0.618034 % 1, np.array([0.95, 0.7, 0.45])[numbers % 3]
    return ListedColormap(hsv_to_rgb(np.stack([hues, np.full(count, 0.75), brightness], 1)))
