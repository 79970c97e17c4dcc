"""SAELens, its `SAETrainer` with its default learning rate; its sparse activations fail on a CPU."""

from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer

from benchmarks.sae_peers.harness import BATCH, D_IN, LATENTS, K, Peer, measure


def make(samples):
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=LATENTS, k=K))
    config = SAETrainerConfig(total_training_samples=10**9, train_batch_size_samples=BATCH, lr_end=3e-5)
    trainer = SAETrainer(config, sae, iter(()))

    def step(batch):
        trainer.step(batch)
        trainer.n_training_steps += 1

    return Peer(f"lr {config.lr}, constant", step, sae, lambda: sae.W_dec)


if __name__ == "__main__":
    measure(make)
