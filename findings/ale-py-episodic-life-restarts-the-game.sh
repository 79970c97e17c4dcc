#!/usr/bin/env bash
# ale-py 0.12.1: AtariVectorEnv(episodic_life=True) starts a new game at each lost life.
#
# Guess:     as in the wrappers of that name in Baselines and Stable-Baselines3: losing a life ends the episode for the
#            learner, and the next one goes on in the same game, so that the later lives are played as well.
# Behaviour: the game is reset, the score and the maze with it. Every episode of Ms. Pac-Man is one with 3 lives left that
#            ends at 2; the states of the second and third life never occur, and returns are those of one life.
#            (life_loss_info=True reports the loss and plays on, but marks the step as terminated.)
# Seen:      22 episodes in 4,000 random actions; lives after each: always 2, never 1 or 0.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check ale-py==0.12.1 gymnasium==1.4.0 numpy==2.3.5 opencv-python-headless
cat > "$work/play.py" <<'PY'
import numpy as np
from ale_py.vector_env import AtariVectorEnv


def lives_at_ends(**settings):
    env = AtariVectorEnv("ms_pacman", num_envs=1, **settings)
    env.reset(seed=0)
    rng, lives = np.random.default_rng(0), []
    for _ in range(4000):
        _, _, terminated, truncated, info = env.step(rng.integers(9, size=1))
        if terminated[0] or truncated[0]:
            lives.append(int(info["lives"][0]))
    return lives


episodic, plain = lives_at_ends(episodic_life=True), lives_at_ends()
print("episodic_life:", len(episodic), "episodes, lives after each", sorted(set(episodic)))
print("plain:", len(plain), "episodes, lives after each", sorted(set(plain)))
assert len(episodic) > 5 and set(episodic) == {2} and set(plain) == {0}, "CHANGED"
print("as stated")
PY
"$work/venv/bin/python" "$work/play.py"
