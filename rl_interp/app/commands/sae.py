"""`rl-interp sae fit`, `sae evaluate`, `sae sweep`, `sae test`, `sae report`, `sae compare`, `sae push` and `sae
pull`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from rl_interp.agents.load import load_agent, new_run_path
from rl_interp.analysis.playing import store_path
from rl_interp.analysis.sae.evaluation import (
    coverage_json,
    evaluate_hypotheses,
    evaluate_predictive_features,
    metrics_json,
    play_spliced,
)
from rl_interp.analysis.sae.runs import fit_run, load_autoencoder, load_sae, open_pair, require_held_out, split
from rl_interp.analysis.sae.sweep import grid, markdown, pareto, run_sweep
from rl_interp.app.pages import build, compare, summary, write_page
from rl_interp.core.errors import at_least_one
from rl_interp.core.files import require_ours, write_json, write_text
from rl_interp.core.locks import writing
from rl_interp.core.store import ActivationStore
from rl_interp.sae import SAEConfig, diagnose, pull, push, save
from rl_interp.sae.export import CONFIG, WEIGHTS


def sae_fit(
    run: tyro.conf.Positional[str],
    hook: str = "fc.post",
    to: str | None = None,
    config: Annotated[SAEConfig, tyro.conf.arg(name="")] = SAEConfig(),  # noqa: B008 - frozen
    name: Annotated[str | None, tyro.conf.arg(name="as")] = None,
    checkpoint: int | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Fit a sparse autoencoder on collected activations, or a transcoder; the same command again resumes it.

    Args:
        run: The agent's run; `rl-interp collect` has stored its activations.
        hook: Name of the hook point.
        to: Name of a later one, for a transcoder that predicts it; collected like the other.
        config: See the fields.
        name: Of the new run, or a path; by default made of the agent's, the hook and the sizes.
        checkpoint: Step of the agent's checkpoint; by default the newest.
        device: auto, cpu or cuda.
    """
    require_held_out(config)
    loaded = load_agent(run, checkpoint)
    if to is None:
        store, target, what = ActivationStore(store_path(loaded.run, hook)), None, f"sae-{hook}"
    else:
        (store, target), what = open_pair(*(store_path(loaded.run, at) for at in (hook, to))), f"transcoder-{hook}-{to}"
    path = new_run_path(name or f"{loaded.run.path.name}-{what}-{config.latents}-k{config.k}-seed{config.seed}")
    rows = np.sort(np.concatenate(split(store, config)))
    if len(rows) < len(store):
        left_out = f"{1 - len(rows) / len(store):.1%} of the samples are left out, as actions do nothing there"
        print(f"{hook}: {left_out}; --uncontrollable keeps them.", file=sys.stderr)
    elif not config.uncontrollable and "controllable" not in store.columns():
        print(f"{hook}: the store does not tell in which samples actions do nothing; all are used.", file=sys.stderr)
    diagnoses = {each.hook: diagnose(each, rows) for each in (store, target) if each is not None}
    for at, found in diagnoses.items():
        for sentence in (*found.warnings(config), *found.notes()):
            print(f"{at}: {sentence}", file=sys.stderr)
    samples, rate = fit_run(loaded, store, config, path, target, device)
    fitted = load_sae(path, device)
    metrics = metrics_json(fitted) | {"diagnosis": asdict(diagnoses[store.hook]), "made_from": fitted.made_from}
    write_json(path / "analyses" / "metrics.json", metrics)
    if metrics.get("policy_kl", 0.0) is None:
        print(
            f"{store.hook}: spliced in, it leaves the agent no policy in some decisions, as where errors add up in a "
            "memory; fit it on more samples, or with more latents.",
            file=sys.stderr,
        )
    return {"run": str(path), "samples": samples, "samples_per_second": rate, **metrics}


def sae_evaluate(
    run: tyro.conf.Positional[str],
    episodes: int = 30,
    seed: int = 1_000,
    epsilon: float = 0.001,
    random_network: bool = False,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure an autoencoder or a transcoder: reconstruction, latents, policy, concepts, and the return of episodes
    played through it.

    Args:
        run: Its run.
        episodes: Whole episodes per condition: original, spliced, and the layer at zero, at its mean
            and at the value of a random other decision; of the return that each of these three loses, it says how
            much the splice recovers.
        seed: Of the episodes.
        epsilon: Probability of a random action.
        random_network: Also score the concepts of a dictionary fitted to the agent with its weights shuffled, for which
            the stored episodes are played again.
        device: auto, cpu or cuda.
    """
    at_least_one(episodes=episodes)
    fitted = load_sae(run, device)
    result = {"run": str(fitted.run.path), **metrics_json(fitted), **play_spliced(fitted, episodes, seed, epsilon)}
    result |= {"coverage": coverage_json(fitted, random_network), "made_from": fitted.made_from}
    write_json(fitted.run.path / "analyses" / "evaluation.json", result)
    return result


def sae_sweep(
    run: tyro.conf.Positional[str],
    hooks: tuple[str, ...] = ("fc.post",),
    variants: tuple[Literal["topk", "batch_topk", "matryoshka", "jumprelu", "gated"], ...] = ("topk",),
    latents: tuple[int, ...] = (512, 2048),
    ks: tuple[int, ...] = (8, 16, 32, 64),
    seeds: int = 1,
    config: SAEConfig = SAEConfig(),  # noqa: B008 - frozen
    episodes: int = 0,
    ray: str | None = None,
    name: Annotated[str | None, tyro.conf.arg(name="as")] = None,
    checkpoint: int | None = None,
) -> dict[str, Any]:
    """Fit every combination of sizes, measure each, and plot what sparsity costs; again, it goes on.

    Args:
        run: The agent's run; `rl-interp collect` has stored its activations.
        hooks: Names of hook points.
        variants: Of dictionary.
        latents: Widths.
        ks: Latents active in a sample.
        seeds: Fits of each size; with two or more, how well their features agree is in the table, beside chance.
        config: Everything else.
        episodes: Whole episodes to play through each dictionary, and with the layer ablated; 0 for none.
        ray: Address of a Ray cluster, or local; by default everything happens in this process.
        name: Of the sweep, or a path.
        checkpoint: Step of the agent's checkpoint; by default the newest.
    """
    require_held_out(config)
    loaded = load_agent(run, checkpoint)
    stores = [ActivationStore(store_path(loaded.run, hook)).path for hook in hooks]
    configs = grid(config, variants, latents, ks, seeds)
    path = new_run_path(name or f"{loaded.run.path.name}-sweep")
    with writing(path):
        found = run_sweep(run, checkpoint, stores, configs, path, episodes, ray)
        write_json(path / "result.json", found)
        write_text(path / "table.md", markdown(found))
        plot = pareto(found, path / "pareto.png")
    return {"run": str(path), "table": str(path / "table.md"), "plot": str(plot), "result": found}


def sae_test(
    run: tyro.conf.Positional[str],
    hypotheses: tyro.conf.Positional[tuple[str, ...]] = (),
    states: int = 4096,
    count: int = 10,
) -> dict[str, Any]:
    """Put claims about features to the test, on states of held-out episodes and beside random directions; those of a
    dictionary's own features beside those of a random dictionary's.

    Args:
        run: The autoencoder's run.
        hypotheses: FEATURE high|off: ACTION[,ACTION] more|less, such as "12 high: LEFT more"; the feature is a number,
            or a concept, for which the one that tells it best in training is taken. Without any, that features make
            likelier what the agent does when they fire, of those that predict an action best in training.
        states: Held-out states; of a layer with positions, at all of which a feature is set, about 256 at most.
        count: Features to take where no hypotheses are given.
    """
    fitted = load_autoencoder(run)
    if hypotheses:
        found = {"features": evaluate_hypotheses(fitted, hypotheses, states)}
    else:
        found = evaluate_predictive_features(fitted, states, count)
    write_json(fitted.run.path / "analyses" / "hypotheses.json", found | {"made_from": fitted.made_from})
    summary = {
        name: {
            "passed": sum(each["passed"] for each in outcomes),
            "exceeds": sum(each["exceeds"] for each in outcomes) / len(outcomes),
        }
        for name, outcomes in found.items()
    }
    return {"run": str(fitted.run.path), "summary": summary, "outcomes": found["features"]}


def sae_push(
    run: tyro.conf.Positional[str],
    repo: tyro.conf.Positional[str],
    folder: str | None = None,
    private: bool = False,
) -> dict[str, Any]:
    """Upload an autoencoder to a model repository of a hub, in SAELens's layout; needs the extra hub.

    Args:
        run: The autoencoder's run.
        repo: OWNER/NAME; it is made if it is not there.
        folder: In the repository; by default the hook's name.
        private: Whether a repository that is made is private.
    """
    fitted = load_sae(run)
    where = fitted.hook if folder is None else folder
    address = push(fitted.run.path / "sae_lens", repo, where, private)
    return {"run": str(fitted.run.path), "repo": repo, "folder": where, "commit": address}


def sae_pull(
    repo: tyro.conf.Positional[str], output: Path, folder: str = "", revision: str | None = None
) -> dict[str, Any]:
    """Fetch a dictionary from a hub and write it, in SAELens's layout, for `sae.load`; needs the extra hub.

    Args:
        repo: OWNER/NAME.
        output: The directory to write; one that holds anything but a dictionary is left alone.
        folder: In the repository.
        revision: A branch, tag or commit; by default the newest.
    """
    require_ours(output, (CONFIG, WEIGHTS))  # better before it is fetched
    found = pull(repo, folder, revision)
    path = save(found, output, {"repo": repo, "folder": folder})
    return {"sae": str(path), "d_in": found.d_in, "d_sae": found.d_sae}


def sae_report(
    run: tyro.conf.Positional[str], output: Path | None = None, top: int = 4, clips: int = 200, maps: int = 24
) -> dict[str, Any]:
    """Write the autoencoder's report: one HTML file that needs nothing else.

    Args:
        run: The autoencoder's run; `rl-interp sae evaluate` adds the returns to its report.
        output: The file; by default report.html in the run.
        top: Top frames per feature, each from another episode.
        clips: Of how many features, those whose clamping changes most actions, what happened around the strongest
            moment is shown too.
        maps: Of how many of them what they look at there is shown.
    """
    fitted = load_autoencoder(run)
    path = output or fitted.run.path / "report.html"
    write_page("report", build(fitted, top, clips, maps), path)
    return {"run": str(fitted.run.path), "report": str(path)}


def sae_compare(
    run: tyro.conf.Positional[str], other: tyro.conf.Positional[str], output: Path | None = None, top: int = 2
) -> dict[str, Any]:
    """Match the features of two autoencoders, of one agent or of two in the same environment, and write a page of both.

    Args:
        run: An autoencoder's run; the match is made on its held-out episodes.
        other: Another one's.
        output: The file; by default comparison.html in the first run.
        top: Top frames per feature, each from another episode.
    """
    first, second = load_autoencoder(run), load_autoencoder(other)
    path = output or first.run.path / "comparison.html"
    data = compare(first, second, top)
    write_page("comparison", data, path)
    return {"run": str(first.run.path), "other": str(second.run.path), "page": str(path), **summary(data)}
