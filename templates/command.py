"""`rl-interp silent-units`."""

# A new command is three small things:
# 1. an analysis that knows no terminal, in `rl_interp/analysis/` (here `silent_units`, below);
# 2. this file, in `rl_interp/app/commands/`: a function that parses its flags, calls the analysis once, returns a dict;
# 3. a line in `COMMANDS` of `rl_interp/app/cli.py`: `"silent-units": "silent_units:silent_units_command"`.
# `--json`, `--help`, Ctrl-C and the check of numbers come with it.

from typing import Any

import numpy as np
import torch

from rl_interp.app.commands.flags import Count, FromAgent, Seed
from rl_interp.app.progress import TERMINAL
from rl_interp.core.agent import Agent
from rl_interp.core.envs import EnvConfig, make_vector
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.progress import SILENT, Progress


def silent_units_command(
    agent: FromAgent,
    hook: str = "fc.post",
    steps: Count = 200,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Count the units of a layer that are 0 in every state of some play.

    Args:
        hook: Name of the hook point.
        steps: Environment steps to play, in each of four environments.
        seed: Seed of the environments and of the actions.
    """
    loaded = agent.load()
    return loaded.source | silent_units(loaded.agent, loaded.env, hook, steps, seed, TERMINAL)


def silent_units(
    agent: Agent, config: EnvConfig, hook: str, steps: int, seed: int, progress: Progress = SILENT
) -> dict[str, Any]:
    """Units of `hook` that are 0 in all states of `steps` steps of random play; belongs in `rl_interp/analysis/`."""
    env, rng = make_vector(config, num_envs=4), np.random.default_rng(seed)
    obs, fired = env.reset(seed), torch.zeros(1, dtype=torch.bool)
    with progress.bar("playing", steps, "step") as update:
        for step in range(steps):
            _, cache = run_with_cache(agent, torch.from_numpy(obs), names=[hook])
            fired = fired | (cache[hook] != 0).any(0).cpu()
            env.send(rng.integers(len(env.action_names), size=env.num_envs))
            obs = env.recv().obs
            update(step + 1)
    env.close()
    return {"hook": hook, "units": fired.numel(), "silent": int((~fired).sum())}
