"""Winograd's convolution beside PyTorch's, forwards and backwards, on boards of even and odd sides."""

import pytest
import torch
from torch.nn import functional as F

from rl_interp.agents.impala.winograd import convolved, gathered_weights, gradients, spread_weights, tiles


@pytest.mark.parametrize(("height", "width"), [(6, 4), (5, 7), (2, 3)])
def test_it_is_the_convolution_and_its_gradients(height, width):
    torch.manual_seed(0)
    boards, weight = torch.randn(3, 5, height, width), torch.randn(8, 5, 3, 3)
    boards, weight = boards.requires_grad_(), weight.requires_grad_()
    wanted = F.conv2d(boards, weight, padding=1)
    d_out = torch.randn_like(wanted)
    wanted.backward(d_out)
    last = (boards, d_out)
    given, d_given = (each.detach().permute(0, 2, 3, 1).contiguous().numpy() for each in last)
    planes, spread = tiles(given), spread_weights(weight.detach())
    out, d_spread = convolved(planes, spread, (height, width)), torch.zeros_like(spread)
    d_in = gradients(d_given, planes, spread, d_spread)
    torch.testing.assert_close(torch.from_numpy(out).permute(0, 3, 1, 2), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.from_numpy(d_in).permute(0, 3, 1, 2), boards.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gathered_weights(d_spread), weight.grad, atol=1e-4, rtol=1e-5)
