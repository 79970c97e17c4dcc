#!/usr/bin/env bash
# minigrid 3.2.0: in two families of tasks actions do what another one does, without a word.
#
# Guess:     the seven actions of MiniGridEnv.actions do in every task what they are called, or the task refuses them.
# Behaviour: in MiniGrid-Dynamic-Obstacles-*, whose action space has three, step() takes 3 to 6 for 0, "left"; no error.
#            An agent with seven outputs there has five that mean left. In MiniGrid-Memory-*, whose action space has seven,
#            "pickup" opens what "toggle" opens, and picks nothing up.
# Seen:      Dynamic-Obstacles: pickup, drop, toggle and done turn left; Memory: before a closed door, pickup opens it.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check minigrid==3.2.0 gymnasium==1.4.0 numpy==2.3.5
cat > "$work/act.py" <<'PY'
import gymnasium
import minigrid  # noqa: F401 - registers the ids
from minigrid.core.world_object import Door


def fresh(task):
    env = gymnasium.make(task).unwrapped
    env.reset(seed=0)
    return env


task = "MiniGrid-Dynamic-Obstacles-5x5-v0"
turns = []
for action in range(3, 7):
    env = fresh(task)
    before = env.agent_dir
    env.step(action)
    if env.agent_dir == (before - 1) % 4:
        turns.append(env.actions(action).name)
print(task, fresh(task).action_space, "turn left:", turns)
assert turns == ["pickup", "drop", "toggle", "done"], "CHANGED"


def door_after(task, action):
    env = fresh(task)
    door = Door("blue")
    env.grid.set(*env.front_pos, door)
    env.step(env.actions[action])
    return door.is_open


opened = {task: door_after(task, "pickup") for task in ("MiniGrid-MemoryS7-v0", "MiniGrid-Empty-8x8-v0")}
print("opened by pickup:", opened)
assert opened == {"MiniGrid-MemoryS7-v0": True, "MiniGrid-Empty-8x8-v0": False}, "CHANGED"
print("as stated")
PY
"$work/venv/bin/python" "$work/act.py"
