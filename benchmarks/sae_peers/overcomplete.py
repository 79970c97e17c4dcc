"""overcomplete, its `TopKSAE` with the optimiser and loss of its documentation and the updates of its `train_sae`."""

import torch
from overcomplete.sae import TopKSAE

from benchmarks.sae_peers.harness import D_IN, LATENTS, K, Peer, measure


def make(samples):
    sae = TopKSAE(D_IN, nb_concepts=LATENTS, top_k=K)
    optimizer = torch.optim.Adam(sae.parameters(), lr=5e-4)

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
