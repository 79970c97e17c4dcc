"""The pictures of a report."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch import nn

from rl_interp import wrap
from rl_interp.analysis.sae import pictures
from rl_interp.core.collect import collect
from rl_interp.core.envs import AtariConfig
from rl_interp.core.replay import revisit


@pytest.fixture
def fitted(tmp_path):
    env = AtariConfig(max_frames=240)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4 * 84 * 84, len(env.action_names)))
    agent = wrap(net, {"out": ("1", "B D")}, lambda module, obs: module(obs / 255))
    store = collect(agent, env, "out", 150, tmp_path / "store", seed=3, num_envs=2, epsilon=0.5)
    return SimpleNamespace(store=store, agent=SimpleNamespace(env=env))


def test_sheets_hold_the_screens_that_a_person_would_have_seen(fitted, monkeypatch):
    monkeypatch.setattr(pictures, "SHEET", 3)
    chosen = np.array([fitted.store.samples - 1, 7, 20, 21, 7, 9, 8])
    found = pictures.screens(fitted, chosen, keep=[9, 20])
    sheets = [np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet)))) for sheet in found.sheets]
    wanted = {
        visit.sample: (visit.env.render(), visit.obs) for visit in revisit(fitted.agent.env, fitted.store, chosen)
    }
    assert found.places.keys() == wanted.keys()
    for sample, (sheet, number) in found.places.items():
        screen = sheets[sheet][number * found.height : (number + 1) * found.height]
        np.testing.assert_array_equal(screen, wanted[sample][0])
    assert found.kept.keys() == {9, 20}
    for sample, look in found.kept.items():
        np.testing.assert_array_equal(look.screen, wanted[sample][0])
        np.testing.assert_array_equal(look.obs, wanted[sample][1])


@pytest.mark.full
def test_sheets_made_in_several_processes_are_the_same(fitted, monkeypatch):
    chosen = np.arange(0, fitted.store.samples, 9)
    alone = pictures.screens(fitted, chosen, keep=[9])
    monkeypatch.setattr(pictures, "_WORTH", 1)
    together = pictures.screens(fitted, chosen, keep=[9])
    assert (together.places, together.sheets) == (alone.places, alone.sheets)
    np.testing.assert_array_equal(together.kept[9].obs, alone.kept[9].obs)
