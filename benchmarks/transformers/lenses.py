"""The OCA lens beside the tuned lens, on held-out stories: what a small transformer's stream holds before each block.

    python -m benchmarks.transformers.lenses measure     # trains the model too: a minute and a half of one core
    python -m benchmarks.transformers.lenses report      # the table and the picture

Words of the stories that lenses are fitted on are of other seeds and other stories.
"""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl_interp.agents.transformer import Training, Transformer, default_config
from rl_interp.agents.transformer.training import Texts
from rl_interp.analysis.circuits.lenses import LensConfig, OCALens, TunedLens, fit_lens, lens_loss, streams_of
from rl_interp.core.envs import TextConfig
from rl_interp.core.envs.text.config import NOTHING
from rl_interp.core.files import write_json
from rl_interp.core.pictures import new_figure, save_figure
from rl_interp.core.read import read_json
from rl_interp.core.stats import bootstrap, mean
from rl_interp.core.tables import markdown

OUT = Path(__file__).parents[2] / "docs" / "results" / "transformers"
CONFIG = default_config(
    "rl_interp/Text-stories", layers=4, width=64, heads=4, hidden=256, agent_steps=400_000, learning_rate=3e-3
)
RATES = {"oca": 3e-2, "tuned": 3e-3}


def measure() -> None:
    """Train, fit, and write `lenses.json`."""
    start, training = time.process_time(), Training(CONFIG, 0, "cpu")
    while training.agent_steps < CONFIG.agent_steps:
        training.advance()
    agent = training.agent.eval()
    assert isinstance(CONFIG.env, TextConfig)
    context = CONFIG.architecture.context
    fitted = Texts(CONFIG.env, context).draw(400, np.random.default_rng(1))
    held_out = Texts(CONFIG.env.scored, context).draw(200, np.random.default_rng(2))
    found: dict[str, Any] = {"seconds_of_training": time.process_time() - start, "blocks": []}
    for at in range(agent.shape.layers):
        x, said, _ = _words(agent, fitted, at)
        other, wanted, follows = _words(agent, held_out, at)
        row: dict[str, Any] = {"at": at}
        for name, lens in (("oca", OCALens(agent, at)), ("tuned", TunedLens(agent))):
            with torch.no_grad():
                first = lens_loss(lens(other), wanted)
            fit_lens(lens, x, said, LensConfig(rate=RATES[name]))
            with torch.no_grad():
                kl, logits = lens_loss(lens(other), wanted), lens(other)
                right = -logits.log_softmax(-1).gather(1, follows[:, None])[:, 0]
            row[name] = {
                "kl": vars(bootstrap([kl.numpy()], mean)), "kl_before": float(first.mean()),
                "loss": float(right.mean()),
                "numbers": sum(weight.numel() for weight in lens.parameters()),
            }  # fmt: skip
        row["loss_of_model"] = float(-wanted.log_softmax(-1).gather(1, follows[:, None]).mean())
        found["blocks"].append(row)
        print(row, flush=True)
    found["seconds"] = time.process_time() - start
    write_json(OUT / "lenses.json", found)


def _words(agent: Transformer, texts: Tensor, at: int) -> tuple[Tensor, Tensor, Tensor]:
    """`[N, D]` streams before a block, `[N, V]` what is said in the end, and int64 `[N]` what follows."""
    streams, said = streams_of(agent, texts[:, :-1])
    known = texts[:, 1:] != NOTHING
    return streams[at][known], said[known], texts[:, 1:][known]


def report() -> None:
    """Print the table and draw the picture."""
    found, rows = read_json(OUT / "lenses.json"), []
    for row in found["blocks"]:
        cells = [f"{row[n]['kl']['value']:.4f} [{row[n]['kl']['low']:.4f}, {row[n]['kl']['high']:.4f}]"
                 for n in ("oca", "tuned")]  # fmt: skip
        losses = [f"{row[name]['loss']:.3f}" for name in ("oca", "tuned")]
        rows.append([f"before block {row['at']}", *cells, f"{row['tuned']['kl_before']:.3f}", *losses,
                     *(f"{row[name]['numbers']:,}" for name in ("oca", "tuned"))])  # fmt: skip
    print(markdown(["", "OCA lens, KL", "tuned lens, KL", "logit lens, KL", "OCA, loss", "tuned, loss", "OCA, numbers",
                    "tuned, numbers"], rows))  # fmt: skip
    figure, axes = new_figure(1, 1, 5.5, 3.8)
    (axis,) = axes.flat
    for name, colour in (("oca", "black"), ("tuned", "C0")):
        axis.plot([row["at"] for row in found["blocks"]], [row[name]["kl"]["value"] for row in found["blocks"]], "o-",
                  label=f"{'OCA' if name == 'oca' else name} lens", color=colour)  # fmt: skip
    axis.set_xticks(range(len(found["blocks"])), [f"before block {row['at']}" for row in found["blocks"]])
    axis.set_ylabel("KL from what is said in the end, nats")
    axis.set_yscale("log")
    axis.legend()
    save_figure(figure, OUT / "lenses.png")


if __name__ == "__main__":
    {"measure": measure, "report": report}[sys.argv[1]]()
