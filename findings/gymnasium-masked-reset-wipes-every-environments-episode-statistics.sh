#!/usr/bin/env bash
# gymnasium 1.4.0: the vector RecordEpisodeStatistics forgets all environments when one is reset by its mask.
#
# Guess:     with AutoresetMode.DISABLED, reset(options={"reset_mask": done}) starts new episodes in the masked slots, and
#            the wrapper sets the return and length of these to 0; the other slots' episodes go on, and so do their counts.
# Behaviour: the environments do go on, but the wrapper's counts of every slot start at 0 again: SyncVectorEnv takes
#            "reset_mask" out of the very options dictionary that the wrapper looks into afterwards. Returns and lengths in
#            info["episode"] are those since anybody's last reset, so too small, without a warning.
# Seen:      of 60 episodes in 4 CartPoles, 56 had a length below the true one, such as 3 of 14 steps; with one
#            environment none had.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check gymnasium==1.4.0 numpy==2.3.5
cat > "$work/count.py" <<'PY'
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics


def lengths(slots, episodes=60):
    """Of each episode as it ends: what the wrapper says, and how many steps it took."""
    settings = {"autoreset_mode": AutoresetMode.DISABLED}
    env = RecordEpisodeStatistics(gymnasium.make_vec("CartPole-v1", slots, "sync", vector_kwargs=settings))
    env.reset(seed=0)
    rng, taken, found = np.random.default_rng(0), np.zeros(slots, int), []
    while len(found) < episodes:
        _, _, terminated, truncated, info = env.step(rng.integers(2, size=slots))
        taken += 1
        done = terminated | truncated
        found += [(int(info["episode"]["l"][slot]), int(taken[slot])) for slot in np.flatnonzero(done)]
        if done.any():
            env.reset(options={"reset_mask": done.copy()})
            taken[done] = 0
    return found[:episodes]


wrong = [(said, true) for said, true in lengths(4) if said != true]
print(f"4 environments: {len(wrong)} of 60 lengths are wrong, such as", wrong[:4], "(said, true)")
alone = sum(said != true for said, true in lengths(1))
print(f"1 environment: {alone} of 60")
assert wrong and all(said < true for said, true in wrong) and alone == 0, "CHANGED"
print("as stated")
PY
"$work/venv/bin/python" "$work/count.py"
