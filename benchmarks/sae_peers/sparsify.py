"""sparsify, its `SparseCoder` with its default optimiser and the updates of its `Trainer`, which wants a language
model."""

import os

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # there is none on a CPU

from schedulefree import ScheduleFreeWrapper
from sparsify import SparseCoder, SparseCoderConfig
from sparsify.sign_sgd import SignSGD

from benchmarks.sae_peers.harness import Peer, Size, measure


def make(samples, size: Size):
    coder = SparseCoder(size.d_in, SparseCoderConfig(num_latents=size.latents, k=size.k))
    coder.b_dec.data = samples[:4096].mean(0)
    rate = size.factor * 5e-3 / (size.latents / 2**14) ** 0.5
    optimizer = ScheduleFreeWrapper(SignSGD(coder.parameters(), lr=rate), momentum=0.95)

    def step(batch):
        optimizer.train()
        coder.set_decoder_norm_to_unit_norm()
        coder(batch).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    def averaged():
        optimizer.eval()  # its weights are the schedule-free average's, which is what it has learned
        return coder

    setting = f"schedule-free signum, lr {rate:.1e}"
    return Peer(setting, step, lambda x: averaged()(x).sae_out, lambda: averaged().W_dec)


if __name__ == "__main__":
    measure(make)
