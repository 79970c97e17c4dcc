"""Where positions look, beside an independent way to find out: which pixels move them."""

import numpy as np
import pytest
import torch
from torch import nn

from rl_interp.agents.impala import IMPALA
from rl_interp.agents.impala.drc import DRC
from rl_interp.core.envs import AtariConfig, CrafterConfig, MazeConfig, MiniGridConfig, SokobanConfig
from rl_interp.core.errors import HookError, UserError
from rl_interp.core.hooks import run_with_cache
from rl_interp.core.receptive_fields import receptive_fields, spatial_points
from rl_interp.core.wrap import wrap


def stack() -> nn.Sequential:
    """Odd kernels, strides, paddings, uneven ones too, a dilation and a pool, for observations of 41 x 50 pixels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ZeroPad2d((3, 1, 0, 2)),
        nn.Conv2d(1, 2, (5, 3), stride=(2, 1), padding=(1, 0)), nn.AvgPool2d(2), nn.Conv2d(2, 2, 3, dilation=2),
        nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip


def test_centres_are_those_of_the_pixels_that_move_a_position():
    module = stack()
    obs = torch.rand(1, 1, 41, 50)
    module(obs)
    agent = wrap(module, {name: (name, "B C H W") for name in ("1", "2", "3")})
    for name in ("1", "2", "3"):
        place = receptive_fields(agent, name, obs)
        rows, columns = place.pixels()
        given = obs.clone().requires_grad_()
        made = module[: int(name) + 1](given)
        assert place.shape == tuple(made.shape[2:])
        for y in (2, 3):
            for x in (3, 5):
                (moved,) = torch.autograd.grad(made[0, :, y, x].sum(), given, retain_graph=True)
                there = np.argwhere(moved[0, 0].numpy() != 0)
                middle = (there.min(0) + there.max(0)) / 2
                assert tuple(middle) == (rows[y], columns[x])


def test_a_layer_that_halves_the_picture_has_one_position_a_maze_s_cell():
    agent = IMPALA(5, (3, 64, 64), channels=(2, 2, 2), hidden=4, lstm=0)
    obs = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    rows, _ = receptive_fields(agent, "block1.res2.sum", obs).cells(MazeConfig())
    np.testing.assert_array_equal(rows, np.arange(32) - 3)
    rows, _ = receptive_fields(agent, "block3.res1.pre", obs).cells(MazeConfig())
    np.testing.assert_array_equal(rows, 4 * np.arange(8) - 3)
    assert receptive_fields(agent, "block1.conv", obs).shape == (64, 64)


def test_symbols_are_cells_and_tiles_are_cells():
    agent = IMPALA(7, (3, 7, 7), categories=(11, 6, 4), hidden=4, lstm=4)
    obs = torch.zeros(1, 3, 7, 7, dtype=torch.uint8)
    rows, columns = receptive_fields(agent, "conv2.post", obs).cells(MiniGridConfig())
    np.testing.assert_array_equal(rows, [2, 3, 4])
    np.testing.assert_array_equal(columns, [2, 3, 4])
    place = receptive_fields(
        IMPALA(17, (3, 64, 64), channels=(2,), hidden=4), "block1.pool", torch.zeros(1, 3, 64, 64).byte()
    )
    np.testing.assert_array_equal(place.cells(CrafterConfig())[0][:8], [0, 0, 0, 0, 1, 1, 1, 2])


@pytest.mark.parametrize(
    "env", [CrafterConfig(), MiniGridConfig(observation="pixels"), MazeConfig()], ids=["Crafter", "MiniGrid", "maze"]
)
def test_a_network_of_cells_has_a_position_for_each_and_first_sees_it_alone(env):
    cell = env.cell_pixels
    agent = IMPALA(5, env.observation_shape, channels=(4, 6), hidden=4, lstm=0, cell=cell)
    obs = torch.zeros(1, *env.observation_shape, dtype=torch.uint8)
    for name in ("block1.conv", "block1.res2.sum", "block2.conv", "torso.post"):
        rows, columns = receptive_fields(agent, name, obs).cells(env)
        assert rows.tolist() == columns.tolist() == list(range((env.observation_shape[1] - cell[1]) // cell[0]))
    row, column = 2, 5
    pixels = [slice(cell[1] + cell[0] * at, cell[1] + cell[0] * (at + 1)) for at in (row, column)]
    edited = obs.clone()
    edited[..., *pixels] = torch.randint(1, 256, edited[..., *pixels].shape, dtype=torch.uint8)
    before, after = (run_with_cache(agent, each, names=["block1.conv"])[1]["block1.conv"] for each in (obs, edited))
    assert np.argwhere((before != after).any(1)[0].numpy()).tolist() == [[row, column]]


def test_the_nearest_position_of_a_cell_is_about_it():
    agent = IMPALA(5, (3, 64, 64), channels=(2, 2, 2), hidden=4, lstm=0)
    place = receptive_fields(agent, "block1.res2.sum", torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    cells = np.array([[0, 0], [3, 24], [24, 7]])
    np.testing.assert_array_equal(place.nearest(MazeConfig(), cells), cells + 3)


def test_each_position_of_a_drcs_cells_is_about_its_own_cell_and_sees_the_whole_board():
    agent = DRC(4, (1, 5, 6), categories=(7,), layers=2, ticks=2, channels=4)
    obs = torch.zeros(1, 1, 5, 6, dtype=torch.uint8)
    place = receptive_fields(agent, "layer2.c", obs)
    assert (place.shape, place.size) == ((5, 6), (9, 11))
    rows, columns = place.cells(SokobanConfig(rows=5, columns=6, boxes=1))
    assert (rows.tolist(), columns.tolist()) == (list(range(5)), list(range(6)))
    with pytest.raises(HookError, match="'layer2.pooled' has no positions"):
        receptive_fields(agent, "layer2.pooled", obs)


def test_what_has_no_positions_is_refused():
    agent = IMPALA(5, (3, 16, 16), channels=(2,), hidden=4, lstm=0)
    obs = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(HookError, match="'fc.post' has no positions; give one of block1.conv"):
        receptive_fields(agent, "fc.post", obs)
    assert spatial_points(agent)[0] == "block1.conv"
    with pytest.raises(UserError, match="ALE/MsPacman-v5 is no grid of cells"):
        receptive_fields(agent, "block1.conv", obs).cells(AtariConfig())

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)
            self.after = nn.ReLU()

        def forward(self, x):
            return self.after(nn.functional.max_pool2d(self.conv(x.float()), 2)).flatten(1)[:, :4]

    other = wrap(Functional(), {"after": ("after", "B C H W")})
    with pytest.raises(UserError, match="has \\(7, 7\\) positions, and its convolutions and pools make \\(14, 14\\)"):
        receptive_fields(other, "after", obs)
