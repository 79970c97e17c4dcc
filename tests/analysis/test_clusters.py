"""Clusters of layers' positions: alike numbers where layers share places, and planes to draw positions on."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rl_interp.agents.load import Loaded
from rl_interp.analysis.episodes import Part, Recipe, clustered, clustered_alike, record, values
from rl_interp.analysis.episodes.clusters import Neighbours
from rl_interp.core.agent import Agent, HookPoint, PolicyOutput
from rl_interp.core.envs import MazeConfig
from rl_interp.core.errors import UserError
from rl_interp.core.run import Run

SIDE = 8


class Patches(Agent):
    """Two layers with positions, the second of which is half as fine as the first."""

    hook_points = {name: HookPoint(name, "B C H W", "spatial") for name in ("fine", "coarse")}

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fine, self.coarse = nn.Conv2d(3, 6, 8, stride=8), nn.Conv2d(6, 4, 2, stride=2)

    def step(self, obs, state=(), first=None):
        h = self.coarse(self.fine(obs.float() / 255))
        return PolicyOutput(logits=h.flatten(1)[:, :5])


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Loaded:
    run = Run(tmp_path_factory.mktemp("runs") / "patches")
    return Loaded(run, 0, Patches(), MazeConfig(min_side=5, max_side=5), "")


@pytest.fixture(scope="module")
def moments(loaded):
    """In which each quadrant of the screen has one colour, and the four change places."""
    moment, rng = record(loaded, Recipe(0, (Part(1),))).moment(0), np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 3))
    made = []
    for _ in range(6):
        quadrants = rng.permutation(colours).reshape(2, 2, 3)
        obs = quadrants.repeat(32, 0).repeat(32, 1).transpose(2, 0, 1).astype(np.uint8)
        made.append(replace(moment, obs=obs))
    return made


def test_clusters_of_another_layer_have_the_numbers_of_those_whose_places_they_share(loaded, moments):
    first = clustered(loaded, moments, "fine", 4)
    other = clustered_alike(first, loaded, moments, "coarse", seed=3)
    np.testing.assert_array_equal(other.alike, np.ones(4))
    for moment in moments:
        fine = first.assign(values(loaded, [moment], "fine")[0]).reshape(SIDE, SIDE)
        coarse = other.assign(values(loaded, [moment], "coarse")[0]).reshape(SIDE // 2, SIDE // 2)
        np.testing.assert_array_equal(coarse, fine[::2, ::2])


def test_where_layers_tell_different_things_apart_little_is_alike(loaded, moments):
    noise = np.random.default_rng(1)
    others = [replace(each, obs=noise.integers(0, 256, each.obs.shape, np.uint8)) for each in moments]
    first = clustered(loaded, moments, "fine", 4)
    assert clustered_alike(first, loaded, others, "coarse").alike.max() < 0.6


def test_a_position_is_drawn_among_the_known_ones_that_it_is_most_like():
    known = np.float32([[0, 0], [0, 1], [1, 0], [1, 1], [0.5, 0.5], [90, 90]])
    plane = Neighbours(known, 10 * known)
    np.testing.assert_allclose(plane.place(known), 10 * known, atol=1e-3)
    np.testing.assert_allclose(plane.place(np.float32([[0.5, 0.5001]])), [[5, 5]], atol=0.1)
    alone = plane.place(np.float32([[0.9, 0.8]]))
    np.testing.assert_array_equal(plane.place(np.float32([[0.9, 0.8], [0.1, 0.1]]))[:1], alone)


def test_a_plane_that_is_unknown_or_not_installed_is_said(loaded, moments, monkeypatch):
    with pytest.raises(UserError, match="unknown plane 'tsne'; known: pca, umap"):
        clustered(loaded, moments, "fine", 4, plane="tsne")  # pyright: ignore[reportArgumentType]
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"umap-learn is not installed; pip install 'rl-interp\[umap\]', or use 'pca'"):
        clustered(loaded, moments, "fine", 4, plane="umap")


@pytest.mark.full
def test_umap_lays_alike_positions_near_each_other(loaded, moments):
    pytest.importorskip("umap")
    made = clustered(loaded, moments, "fine", 4, plane="umap")
    held = values(loaded, moments, "fine").reshape(-1, 6)
    places, cluster = made.place(held), made.assign(held)
    inside = [places[cluster == i] for i in range(4)]
    spread = max(np.linalg.norm(each - each.mean(0), axis=1).max() for each in inside)
    middles = np.stack([each.mean(0) for each in inside])
    apart = np.linalg.norm(middles[:, None] - middles, axis=2)[~np.eye(4, dtype=bool)].min()
    assert apart > spread
    np.testing.assert_array_equal(clustered(loaded, moments, "fine", 4, plane="umap").place(held), places)
