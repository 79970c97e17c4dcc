"""Small dictionaries that were never fitted."""

import torch

from rl_interp.sae import SAE, JumpReLU, TopK


def filled(sae: SAE, seed=0) -> SAE:
    """With random directions, the encoder about the decoder's transpose."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        sae.W_dec.copy_(torch.nn.functional.normalize(torch.randn(sae.W_dec.shape, generator=generator), dim=1))
        if sae.transcodes:
            sae.W_enc.copy_(torch.randn(sae.W_enc.shape, generator=generator))
        else:
            sae.W_enc.copy_(0.5 * sae.W_dec.T)
        sae.b_enc.uniform_(-0.2, 0.2, generator=generator)
        sae.b_dec.uniform_(-0.2, 0.2, generator=generator)
    return sae.eval()


def make(d_in=6, d_sae=10, k=3) -> SAE:
    return filled(TopK(d_in, d_sae, k))


def make_jump(d_in=6, d_sae=10, d_out=None) -> SAE:
    sae = filled(JumpReLU(d_in, d_sae, d_out))
    with torch.no_grad():
        sae.threshold.copy_(torch.linspace(0.05, 0.5, d_sae))
    return sae
