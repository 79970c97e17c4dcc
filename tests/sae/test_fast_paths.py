"""What computes faster is tried on known numbers, and left where it is wrong, whatever the processor says of itself."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from rl_interp.agents import max_pool as pool
from rl_interp.agents.dreamerv3 import norm
from rl_interp.app.commands.info import info
from rl_interp.core import device
from rl_interp.core.errors import UserError
from rl_interp.sae.training import trainer
from rl_interp.sae.training.config import SAEConfig
from rl_interp.sae.training.kernels import cpu
from rl_interp.sae.training.kernels import loops as kernels
from rl_interp.sae.training.kernels.cpu import CPUKernel
from rl_interp.sae.training.kernels.pairs import DenseKernel

CPU = torch.device("cpu")
TRIED = (device.bf16_is_right, device.int8_is_right, cpu.loops_are_right, pool.loops_are_right, norm.loops_are_right)


@pytest.fixture(autouse=True)
def tried_anew():
    for each in TRIED:
        each.cache_clear()
    yield
    for each in TRIED:
        each.cache_clear()


@pytest.fixture
def saturating(monkeypatch):
    """A processor that says it has VNNI, and products in int8 as without: of numbers from 0 to 255 and others, two
    products at a time added up in 16 bits, less what was added to make the numbers positive."""

    def product(rows, latents, *, out):
        rows, latents = rows.int() + 128, latents.T.int()
        pairs = (F.pad(each, (0, each.shape[1] % 2)).view(len(each), -1, 2) for each in (rows, latents))
        sums = torch.einsum("npk,fpk->nfp", *pairs).clamp(-(2**15), 2**15 - 1)
        return out.copy_(sums.sum(2) - 128 * latents.sum(1))

    assert product(*(torch.full((64, 64), 127),) * 2, out=torch.empty(64, 64)).unique().item() == 8160
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch.ops.aten._int_mm, "out", product)


@pytest.mark.parametrize("width", [2, 5, 64])
def test_latents_are_chosen_exactly_where_products_in_int8_saturate(saturating, width):
    generator = torch.Generator().manual_seed(0)
    x, encoder = (torch.rand(size, width, generator=generator) for size in (50, 200))  # all large, and of one sign
    (pairs, _), (wanted, _) = (each.top_rows(x, encoder, torch.zeros(200), 3) for each in (CPUKernel(), DenseKernel()))
    assert torch.equal(pairs.latents, wanted.latents)
    assert not device.int8_pays(CPU)
    assert info()["fast_paths"]["int8 products (fits of dictionaries)"] == "off: wrong on known numbers"


@pytest.mark.skipif(not device.has_int8(CPU), reason="needs a processor with VNNI: others take no such products")
@pytest.mark.parametrize("isa", ["SSE41", "AVX2", "AVX512_CORE", "DEFAULT"])
def test_products_are_found_right_exactly_where_they_are(isa, monkeypatch):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    program = (
        "import torch; from rl_interp.core.device import int8_is_right; x = torch.full((64, 64), 127).to(torch.int8);"
        "print(int8_is_right(64), bool((torch._int_mm(x, x) == 1032256).all()))"
    )
    found, true = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split()
    assert found == true


def test_bf16_that_is_summed_in_bf16_is_not_used(monkeypatch):
    product = torch.mm
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert device.bf16_pays(CPU)

    def in_bf16(a, b):
        total = torch.zeros(len(a), b.shape[1], dtype=a.dtype)
        for column in range(a.shape[1]):
            total += product(a[:, column : column + 1], b[column : column + 1])
        return total

    device.bf16_is_right.cache_clear()
    monkeypatch.setattr(torch, "mm", in_bf16)
    assert not device.computes_in_bf16("auto", CPU)
    with pytest.raises(UserError, match="precision bf16 given, and products in it are wrong on cpu; give fp32 or auto"):
        device.computes_in_bf16("bf16", CPU)
    assert not CPUKernel()._bf16


@pytest.mark.parametrize("loop", ["dots", "sums", "residuals", "top_rows", "above", "by_latent", "largest"])
def test_dictionaries_are_fitted_by_plain_products_where_a_compiled_loop_is_wrong(monkeypatch, loop):
    assert isinstance(trainer._kernel(SAEConfig(), CPU), CPUKernel)
    cpu.loops_are_right.cache_clear()
    right = getattr(kernels, loop)

    def wrong(*args):
        found = right(*args)
        (found[-1] if isinstance(found, tuple) else found).fill(0)
        return found

    monkeypatch.setattr(kernels, loop, wrong)
    assert isinstance(trainer._kernel(SAEConfig(), CPU), DenseKernel)


def test_pictures_are_pooled_by_pytorch_where_the_compiled_loop_is_wrong(monkeypatch):
    x = torch.randn(2, 4, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(pool, "_maxima_and_places", lambda x, values, places: values.fill(0))
    monkeypatch.setattr(pool, "_maxima", lambda x, values: values.fill(0))
    assert torch.equal(pool.MaxPool2d()(x), F.max_pool2d(x, 3, 2, 1))


def test_rows_are_normed_by_pytorch_where_the_compiled_loop_is_wrong(monkeypatch):
    x, layer = torch.randn(6, 8), norm.LayerNorm(8)
    _, backward = norm._kernels(8)
    monkeypatch.setattr(norm, "_kernels", lambda width: (lambda *args: args[4].fill(0), backward))
    torch.testing.assert_close(layer(x), F.layer_norm(x, (8,), eps=1e-3))
