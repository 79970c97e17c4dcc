"""overcomplete, its `TopKSAE` with the optimiser and loss of its documentation and the updates of its `train_sae`."""

import torch
from overcomplete.sae import TopKSAE

from benchmarks.sae_peers.harness import Peer, Size, measure


def make(samples, size: Size):
    sae = TopKSAE(size.d_in, nb_concepts=size.latents, top_k=size.k)
    optimizer = torch.optim.Adam(sae.parameters(), lr=5e-4 * size.factor)

    def step(batch):
        sae.train()
        optimizer.zero_grad()
        _, _, reconstruction = sae(batch)
        (batch - reconstruction).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()

    def reconstruct(x):
        sae.eval()
        return sae(x)[2]

    return Peer("Adam, lr 5e-4", step, reconstruct, lambda: sae.get_dictionary())


if __name__ == "__main__":
    measure(make)
