"""Random play in rooms of gym-sokoban 0.0.6, by an environment that has it (see `compare.py`): `record.py OUT.npz`."""

import random
import sys

import numpy as np
from gym_sokoban.envs import SokobanEnv

EPISODES, STEPS = 40, 119  # it counts steps to its own limit, 120

random.seed(0)
np.random.seed(0)  # noqa: NPY002 - its rooms follow the global streams
boards, actions, rewards, ends = [], [], [], []
env = SokobanEnv(dim_room=(7, 7), max_steps=120, num_boxes=1, reset=False)
for _ in range(EPISODES):
    env.reset(render_mode="tiny_rgb_array")
    boards.append([env.room_state.copy()])
    chosen = np.random.randint(0, 5, STEPS)  # noqa: NPY002
    actions.append(chosen)
    rewards.append([])
    ends.append([])
    over = False
    for action in chosen:
        reward, done = 0.0, True
        if not over:  # 0: none; 1 to 4: up, down, left, right
            _, reward, done, _ = env.step(int(action), observation_mode="tiny_rgb_array")
        over = done
        boards[-1].append(env.room_state.copy())
        rewards[-1].append(reward)
        ends[-1].append(done)
np.savez_compressed(sys.argv[1], boards=boards, actions=actions, rewards=rewards, ends=ends)
