"""Sokoban's rules beside those of gym-sokoban 0.0.6, which needs an older NumPy, so it has an environment of its own:

python -m venv .peers/gym_sokoban && .peers/gym_sokoban/bin/pip install gym-sokoban==0.0.6 gym==0.26.2 "numpy<2"
.peers/gym_sokoban/bin/python tests/oracles/gym_sokoban/record.py play.npz
python tests/oracles/gym_sokoban/compare.py play.npz
"""

import sys

import numpy as np

from rl_interp.core.envs import SokobanConfig, make_vector
from rl_interp.core.envs.sokoban.levels import Levels

NONE = 4


def main(path: str) -> None:
    with np.load(path) as recorded:
        boards, actions, rewards, ends = (recorded[name] for name in ("boards", "actions", "rewards", "ends"))
    begun = boards[:, 0].astype(np.uint8)
    count, compared = len(begun), 0
    env = make_vector(SokobanConfig(rows=7, columns=7, boxes=1, none=True), count)
    env.set_state(Levels(begun, tuple(map(str, range(count)))))
    going = np.ones(count, bool)
    for t in range(actions.shape[1]):
        env.send(np.where(actions[:, t] == 0, NONE, actions[:, t] - 1))
        step = env.recv()
        ours = np.where(env.boards == 6, 5, env.boards)  # its state does not tell a player on a target
        assert (ours[going] == boards[going, t + 1]).all(), f"boards differ at step {t}"
        assert np.allclose(step.reward[going], rewards[going, t], atol=1e-5), f"rewards differ at step {t}"
        assert (step.terminated[going] == ends[going, t]).all(), f"ends differ at step {t}"
        compared += int(going.sum())
        going &= ~ends[:, t].astype(bool)
    print(f"{compared} steps of {count} episodes are alike, {int((~going).sum())} of them solved")


if __name__ == "__main__":
    main(*sys.argv[1:])
