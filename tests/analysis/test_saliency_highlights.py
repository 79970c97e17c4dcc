"""Films cut from an episode's highlights, of policy and value at once, and of several methods."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_saliency_video import Counting
from torch import nn

from rl_interp.agents.load import Loaded
from rl_interp.analysis import saliency_video
from rl_interp.analysis.playing import watch
from rl_interp.analysis.saliency_video import CLIP, _highlights, _interest, film
from rl_interp.core.envs import MazeConfig, env_config, make_labelled
from rl_interp.core.run import Run
from rl_interp.core.wrap import wrap
from rl_interp.saliency import compose


@pytest.fixture
def loaded(tmp_path) -> Loaded:
    return Loaded(Run(tmp_path / "mouse"), 0, Counting(5), MazeConfig(min_side=5, max_side=5), "")


def test_highlights_are_where_the_preferences_lie_farthest_apart_or_have_moved_most(loaded):
    [first] = watch(loaded, make_labelled(loaded.env), 1, None, 1)
    spread = {30: 2, 33: 3, 70: 4} | dict.fromkeys(range(71, 80), 3.9)
    moments = [
        replace(first, step=step, preferences=np.array([0, spread.get(step, 1)], np.float32)) for step in range(100)
    ]
    assert _highlights(_interest(iter(moments), "spread"), 2) == [range(23, 43), range(60, 80)]
    moved = _interest(iter(moments), "change")
    assert np.argsort(moved)[::-1][:2].tolist() == [70, 80]
    assert CLIP == 20


def test_highlights_of_a_vector_are_cut_together(loaded, tmp_path, monkeypatch):
    net = nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.0, 0, -1, -1], [0, 0, 1, 1]]))
    cart = wrap(net, {}, output="q_values", observation="vector")
    vectors = replace(loaded, agent=cart, env=env_config("CartPole-v1"))
    drawn = []
    for name, given in {"WHOLE": 40, "CLIP": 4, "DATA_STEPS": 8}.items():
        monkeypatch.setattr(saliency_video, name, given)
    monkeypatch.setattr(saliency_video, "compose", lambda *given: drawn.append(given) or compose(*given))
    found = film(vectors, tmp_path / "sheet.png", "gradient", "chosen", 1, None, 2, highlights=2)
    steps = drawn[0][1].inputs.steps
    assert found["frames"] == len(steps) < steps[-1] - steps[0], "they are not in a row"
    assert [frame.step for frame, _ in drawn[: len(steps)]] == steps


def test_the_same_input_gives_the_same_bytes(loaded, tmp_path):
    films = []
    for name in ("one.mp4", "two.mp4"):
        found = film(loaded, tmp_path / name, "occlusion", "actor-critic", 2, None, 1, beside=["rise"])
        films.append((tmp_path / name).read_bytes() + (tmp_path / name).with_suffix(".png").read_bytes())
        assert found["frames"] == 2
    assert films[0] == films[1]
    assert np.ptp(np.frombuffer(films[0], np.uint8)) > 0
