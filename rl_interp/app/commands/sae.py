"""Fit, evaluate and share sparse autoencoders and transcoders of a layer."""

from pathlib import Path
from typing import Annotated, Any

import tyro

import rl_interp.analysis.sae.names as names
from rl_interp.agents.load import load_agent
from rl_interp.analysis.sae.comparison import ALIKE, compare, summary
from rl_interp.analysis.sae.evaluation import evaluate_run
from rl_interp.analysis.sae.fitting import fit_new
from rl_interp.analysis.sae.hypotheses import evaluate_claims
from rl_interp.analysis.sae.report import build
from rl_interp.analysis.sae.runs import load_autoencoder, load_sae
from rl_interp.analysis.sae.sweep import grid, sweep
from rl_interp.app.commands.flags import (
    Checkpoint,
    Cluster,
    Count,
    CountOrZero,
    Device,
    Hook,
    NewName,
    Output,
    RunName,
    Seed,
    Share,
    optional,
    several,
)
from rl_interp.app.pages import write_page
from rl_interp.app.progress import TERMINAL
from rl_interp.core.files import require_ours
from rl_interp.core.hooks import last_layer
from rl_interp.sae import SAEConfig, pull, push, save
from rl_interp.sae.export import CONFIG, WEIGHTS
from rl_interp.sae.training.config import VariantName


def sae_fit(
    run: RunName,
    hook: Hook = None,
    to: Annotated[str | None, optional("HOOK")] = None,
    config: Annotated[SAEConfig, tyro.conf.arg(name="")] = SAEConfig(),  # noqa: B008 - frozen
    episodes: CountOrZero = 10,
    start: Annotated[str | None, tyro.conf.arg(name="from", metavar="RUN", help_behavior_hint="")] = None,
    name: NewName = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
) -> dict[str, Any]:
    """Fit a sparse autoencoder, or a transcoder, to collected activations.

    The same command again resumes the fit. A small FVU is no promise that the agent still plays well, so episodes are
    played through the dictionary, beside the same ones without it.

    Args:
        run: The agent's run, whose activations `rl-interp collect` has stored.
        hook: Name of the hook point; by default fc.post, or the last layer that feeds the preferences.
        to: Name of a later hook point, for a transcoder that predicts its activations; collected like the other.
        config: Settings of the fit.
        episodes: Number of whole episodes to play with the dictionary spliced in, and as many without; 0 for none.
        start: Run of a dictionary to go on from, of another checkpoint or other activations; it may have fewer latents.
        name: Name of the new run, or a path; by default made of the agent's, the hook and the sizes.
        checkpoint: Step of the agent's checkpoint; by default the newest.
        device: Device to fit on.
    """
    loaded = load_agent(run, checkpoint, device)
    hook = hook or last_layer(loaded.agent)
    return fit_new(loaded, hook, to, config, name, device, episodes, start, TERMINAL)


def sae_evaluate(
    run: RunName,
    episodes: Count = 30,
    seed: Seed = 1_000,
    epsilon: Share = 0.001,
    random_network: bool = False,
    device: Device = "auto",
) -> dict[str, Any]:
    """Evaluate an autoencoder or a transcoder: its reconstruction, latents, concepts, and play through it.

    Whole episodes are played with the original layer, with the autoencoder spliced in, and with the layer at zero, at
    its mean and at its value in a random other state; the splice is rated by how much of the return that each of these
    three loses it recovers.

    Args:
        run: The autoencoder's run.
        episodes: Number of episodes in each condition.
        seed: Seed of the episodes.
        epsilon: Probability of a random action.
        random_network: Also score the concepts of a dictionary of the agent with its weights shuffled, on the stored
            episodes, which are played again.
        device: Device to compute on.
    """
    fitted = load_sae(run, device, progress=TERMINAL)
    return evaluate_run(fitted, episodes, seed, epsilon, random_network, TERMINAL)


def sae_sweep(
    run: RunName,
    hooks: Annotated[tuple[str, ...], several("HOOK")] = (),
    variants: tuple[VariantName, ...] = ("topk",),
    latents: tuple[Count, ...] = (512, 2048),
    ks: tuple[Count, ...] = (8, 16, 32, 64),
    seeds: Count = 1,
    config: SAEConfig = SAEConfig(),  # noqa: B008 - frozen
    episodes: CountOrZero = 0,
    ray: Cluster = None,
    name: NewName = None,
    checkpoint: Checkpoint = None,
) -> dict[str, Any]:
    """Fit every combination of variants and sizes, evaluate each, and plot what sparsity costs.

    The same command again resumes the sweep; with more sizes it extends it.

    Args:
        run: The agent's run, whose activations `rl-interp collect` has stored.
        hooks: Names of the hook points; by default fc.post, or the last layer that feeds the preferences.
        variants: Variants of the dictionary.
        latents: Widths of the dictionary.
        ks: Numbers of latents that are active in a sample.
        seeds: Number of fits of each size; with two or more, the table says how well their features agree, beside
            chance.
        config: All other settings of the fits.
        episodes: Number of episodes to play through each dictionary, and with the layer ablated; 0 for none.
        ray: Address of a Ray cluster, or "local"; by default everything happens in this process.
        name: Name of the sweep, or a path.
        checkpoint: Step of the agent's checkpoint; by default the newest.
    """
    configs = grid(config, variants, latents, ks, seeds)
    loaded = load_agent(run, checkpoint, "cpu")
    return sweep(loaded, hooks or (last_layer(loaded.agent),), configs, name, episodes, ray, TERMINAL)


def sae_test(
    run: RunName,
    hypotheses: Annotated[tuple[str, ...], tyro.conf.Positional, several("HYPOTHESIS")] = (),
    states: Count = 4096,
    count: Count = 10,
) -> dict[str, Any]:
    """Test hypotheses about features, on states of held-out episodes and beside random directions.

    A hypothesis reads FEATURE high|off: ACTION[,ACTION] more|less, such as "12 high: LEFT more". The feature is a
    number, or a concept, for which the feature that tells it best in training is taken. Without any, the features that
    predict an action best in training are tested: that they make likelier what the agent does when they fire, beside
    those of a random dictionary.

    Args:
        run: The autoencoder's run.
        hypotheses: Hypotheses to test, in quotes.
        states: Number of held-out states; about 256 at most for a layer with positions.
        count: Number of features to take where no hypotheses are given.
    """
    return evaluate_claims(load_autoencoder(run, progress=TERMINAL), hypotheses, states, count, TERMINAL)


def sae_push(
    run: RunName,
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")],
    folder: Annotated[str | None, optional("STR")] = None,
    private: bool = False,
) -> dict[str, Any]:
    """Upload an autoencoder to a model repository of a hub, in SAELens's layout; needs the extra hub.

    Args:
        run: The autoencoder's run.
        repo: Repository to upload to; it is made if there is none.
        folder: Folder in the repository; by default the hook's name.
        private: Make the repository private, if it is made.
    """
    fitted = load_sae(run, progress=TERMINAL)
    where = fitted.hook if folder is None else folder
    address = push(fitted.run.path / "sae_lens", repo, where, private)
    return {"run": str(fitted.run.path), "repo": repo, "folder": where, "commit": address}


def sae_pull(
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")],
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    folder: str = "",
    revision: Annotated[str | None, optional("STR")] = None,
) -> dict[str, Any]:
    """Download a dictionary from a hub, in SAELens's layout, for `rl_interp.sae.load`; needs the extra hub.

    Args:
        repo: Repository to download from.
        output: Directory to write; one that holds anything but a dictionary is left alone.
        folder: Folder in the repository.
        revision: Branch, tag or commit; by default the newest.
    """
    require_ours(output, (CONFIG, WEIGHTS))  # better before it is fetched
    found = pull(repo, folder, revision)
    path = save(found, output, {"repo": repo, "folder": folder})
    return {"sae": str(path), "d_in": found.d_in, "d_sae": found.d_sae}


def sae_report(
    run: RunName,
    output: Output = None,
    top: Count = 4,
    clips: CountOrZero = 200,
    maps: CountOrZero = 24,
) -> dict[str, Any]:
    """Write an autoencoder's report: one HTML file that needs nothing else.

    Args:
        run: The autoencoder's run; the report has the returns if `rl-interp sae evaluate` has measured them.
        output: The file to write; by default report.html in the run.
        top: Number of top frames for each feature, each from a different episode.
        clips: Number of features to show a clip of, around their strongest moment; those whose clamping changes most
            actions.
        maps: Number of these features to show a saliency map of.
    """
    fitted = load_autoencoder(run, progress=TERMINAL)
    path = output or fitted.run.path / "report.html"
    write_page("report", build(fitted, top, clips, maps, TERMINAL), path)
    return {"run": str(fitted.run.path), "report": str(path), "continuous": fitted.agent.agent.continuous}


def sae_compare(
    run: RunName,
    other: RunName,
    output: Output = None,
    top: Count = 2,
    carry_names: bool = False,
) -> dict[str, Any]:
    """Match the features of two autoencoders, and write a page that shows both.

    They are of one agent, or of two in the same environment.

    Args:
        run: An autoencoder's run; features are matched on its held-out episodes.
        other: The other autoencoder's run.
        output: The file to write; by default comparison.html in the first run.
        top: Number of top frames for each feature, each from a different episode.
        carry_names: Give the other's features the names and notes of those that they match with a correlation of 0.7
            or more; a feature that has a name keeps it.
    """
    first = load_autoencoder(run, progress=TERMINAL)
    second = load_autoencoder(other, opened=(first.agent, first.store), progress=TERMINAL)
    path = output or first.run.path / "comparison.html"
    data = compare(first, second, top, TERMINAL)
    carried = {}
    if carry_names:
        alike = [(f, g) for f, g, correlation in data["pairs"] if correlation >= ALIKE]
        carried = {"carried_names": len(names.carry_names(first.run, second.run, alike))}
    write_page("comparison", data, path)
    return {"run": str(first.run.path), "other": str(second.run.path), "page": str(path), **summary(data), **carried}
