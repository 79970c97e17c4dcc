"""SAELens, its `SAETrainer` with its default learning rate; its sparse activations fail on a CPU."""

from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.sae_peers.harness import Peer, Size, measure


def make(samples, size: Size):
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=size.d_in, d_sae=size.latents, k=size.k))
    config = SAETrainerConfig(
        total_training_samples=10**9,
        train_batch_size_samples=size.batch,
        lr=3e-4 * size.factor,
        lr_end=3e-5 * size.factor,
    )
    trainer = SAETrainer(config, sae, iter(()))

    def step(batch):
        trainer.step(batch)
        trainer.n_training_steps += 1

    return Peer(f"lr {config.lr}, constant", step, sae, lambda: sae.W_dec)


if __name__ == "__main__":
    measure(make)
