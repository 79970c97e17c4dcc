#!/usr/bin/env bash
# mujoco 4.0.0 (with gymnasium-robotics 1.4.2): an enumeration's member equals a NumPy integer from one side only.
#
# Guess:     model.jnt_type holds mjtJoint values, so `model.jnt_type[i] in (mjJNT_HINGE, mjJNT_SLIDE)` tells whether a joint
#            is one of these, as in mujoco 3; and gymnasium-robotics 1.4.2, which asks for mujoco>=2.2.0, makes its
#            environments.
# Behaviour: a member of the enumeration equals a NumPy integer from one side only: np.int32(3) == mjJNT_HINGE is True,
#            mjJNT_HINGE == np.int32(3) is False, and so is `np.int32(3) in (mjJNT_HINGE,)`; Python's integers are equal
#            from both sides. Fetch, Hand and Kitchen environments, which ask by `in`, end in an assertion without a word;
#            PointMaze and AntMaze, which don't ask, work.
# Seen:      mujoco 3.3.7: True True True, FetchReach-v4 made. mujoco 4.0.0: True False False, FetchReach-v4
#            AssertionError, PointMaze_UMaze-v3 made.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat > "$work/joints.py" <<'PY'
import sys
import warnings

import gymnasium
import gymnasium_robotics
import mujoco
import numpy as np

warnings.filterwarnings("ignore")
gymnasium.register_envs(gymnasium_robotics)


def made(env_id):
    try:
        gymnasium.make(env_id).reset(seed=0)
    except AssertionError:
        return "AssertionError"
    return "made"


hinge = mujoco.mjtJoint.mjJNT_HINGE
equal = [bool(np.int32(3) == hinge), bool(hinge == np.int32(3)), np.int32(3) in (hinge,)]
assert 3 == hinge and hinge == 3
envs = {name: made(name) for name in ("FetchReach-v4", "PointMaze_UMaze-v3")}
print("mujoco", mujoco.__version__, "number == member, member == number, number in (member,):", *equal, envs)
new = sys.argv[1] == "4.0.0"
assert mujoco.__version__ == sys.argv[1]
assert equal == [True, not new, not new], "CHANGED"
assert envs == {"FetchReach-v4": "AssertionError" if new else "made", "PointMaze_UMaze-v3": "made"}, "CHANGED"
PY
for version in 3.3.7 4.0.0; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install --quiet --disable-pip-version-check gymnasium==1.4.0 gymnasium-robotics==1.4.2 \
    "mujoco==$version"
  "$work/$version/bin/python" "$work/joints.py" "$version"
done
echo "as stated"
