"""SAELens, its `SAETrainer` with its default learning rate; its sparse activations fail on a CPU.

The rate is constant, as by default. With a warm-up and a fall over the last fifth, as in SAELens's tutorials, fits of
`benchmarks/sae_quality.py` are worse: FVU 0.348 instead of 0.320 (64 wide, plain, 256 latents).
"""

from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.sae_peers.harness import Peer, Size, measure


def make(samples, size: Size):
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=size.d_in, d_sae=size.latents, k=size.k))
    config = SAETrainerConfig(
        total_training_samples=size.updates * size.batch,
        train_batch_size_samples=size.batch,
        lr=3e-4 * size.factor,
        lr_end=3e-5 * size.factor,
    )
    trainer = SAETrainer(config, sae, iter(()))

    def step(batch):
        trainer.step(batch)
        trainer.n_training_steps += 1

    return Peer(f"lr {config.lr:.1e}, constant", step, sae, lambda: sae.W_dec)


if __name__ == "__main__":
    measure(make)
