"""Before the locked door, with a key and without: what the agent for Unlock does, as trained and with that erased.

python docs/results/erasure/door.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from rl_interp.agents.load import load_agent
from rl_interp.analysis.playing import collect_store
from rl_interp.analysis.probes.erasure import Eraser
from rl_interp.core.hooks import run_with_hooks
from rl_interp.core.interventions import Splice, as_hooks
from rl_interp.core.replay import replay

loaded = load_agent("impala-unlock", device="cpu")
opens = loaded.env.action_names.index("toggle")
for hook in ("fc.post", "lstm.c", "lstm.h"):
    with tempfile.TemporaryDirectory() as folder:
        store = collect_store(loaded, hook, 30_000, Path(folder) / "store", seed=0, epsilon=0.3)
        episodes, key = store.column("episode"), store.column("carries_key") > 0
        door = (store.column("door_ahead") > 0) & (store.column("locked_door_seen") > 0)
        others = np.random.default_rng(0).permutation(np.unique(episodes))[::2]
        learned = ~np.isin(episodes, others)
        eraser = Eraser.of(store.read(np.flatnonzero(learned)), key[learned].astype(float), episodes[learned])
        opened = {"as trained": [], "erased": []}
        for episode in replay(loaded.env, store, others):
            obs, actions = (torch.from_numpy(each)[:, None] for each in (episode.obs, episode.actions))
            for name, interventions in (("as trained", []), ("erased", [Splice(hook, reconstruct=eraser)])):
                with torch.no_grad():
                    out = run_with_hooks(loaded.agent, obs, hooks=as_hooks(interventions), actions=actions, unroll=True)
                opened[name].append(out.preferences[:, 0].argmax(-1).numpy() == opens)
        for name, parts in opened.items():
            for carries in (True, False):
                there = (door & (key == carries))[~learned]
                share = np.concatenate(parts)[there].mean()
                print(
                    f"{hook}, {name}, {'with' if carries else 'without'} the key: opens in {share:.3f} of {there.sum()}"
                )
