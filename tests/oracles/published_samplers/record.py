"""What k-diffusion's samplers and diffusers' EDM schedulers make of known noise, with the exact denoiser of a mixture
of Gaussians; `tests/agents/test_beso_diffusion.py` compares ours with it.

    pip install torch diffusers scipy tqdm torchdiffeq torchsde && pip install --no-deps k-diffusion==0.1.1.post1
    python tests/oracles/published_samplers/record.py

k-diffusion's package imports much that sampling does not need, so its sampling.py alone is loaded.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler

SIGMA_MIN, SIGMA_MAX = 0.005, 1.0
MEANS, SPREADS, WEIGHTS = [[-0.6, 0.3], [0.5, 0.4], [0.1, -0.7]], [0.1, 0.2, 0.05], [0.5, 0.3, 0.2]


def k_sampling() -> ModuleType:
    found = importlib.util.find_spec("k_diffusion")
    folder = Path(found.submodule_search_locations[0])
    package = ModuleType("k_diffusion")
    package.__path__ = [str(folder)]
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": ModuleType("k_diffusion.utils")}
    package.utils = sys.modules["k_diffusion.utils"]
    package.utils.append_dims = lambda x, dims: x.reshape(
        *x.shape, *[1] * (dims - x.dim())
    )  # all that it takes of them
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", folder / "sampling.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def denoise(x, sigma):
    """The mean of the mixture given x with noise of level sigma."""
    sigma = torch.as_tensor(sigma, dtype=torch.float64).flatten()[0]
    means, spreads, weights = (torch.tensor(each, dtype=torch.float64) for each in (MEANS, SPREADS, WEIGHTS))
    total = spreads**2 + sigma**2
    off = x[:, None] - means
    log = weights.log() - total.log() - (off**2).sum(-1) / (2 * total)
    share = log.softmax(-1)[..., None]
    return (share * (means + (spreads**2 / total)[:, None] * off)).sum(1)


def main() -> None:
    k = k_sampling()
    rng = np.random.default_rng(0)
    start, noise = rng.standard_normal((16, 2)), rng.standard_normal((12, 16, 2))
    found = {"start": start, "noise": noise}
    schedules = {
        "exponential": k.get_sigmas_exponential, "karras": k.get_sigmas_karras,
        "linear": lambda n, low, high: k.append_zero(torch.linspace(high, low, n)),
    }  # fmt: skip
    samplers = {
        "euler": k.sample_euler, "ancestral": k.sample_euler_ancestral,
        "heun": k.sample_heun, "dpm++2m": k.sample_dpmpp_2m,
    }  # fmt: skip
    for schedule, make in schedules.items():
        for steps in (1, 3, 12):
            sigmas = make(steps, SIGMA_MIN, SIGMA_MAX).double()
            found[f"{schedule} {steps}"] = sigmas.numpy()
            for name, sample in samplers.items():
                for churn in (0.0, 2.0) if name in ("euler", "heun") else (0.0,):
                    left = iter(torch.from_numpy(noise))
                    k.torch.randn_like = lambda x, left=left: next(left)
                    given = {"s_churn": churn} if churn else {}
                    if name == "ancestral":
                        given = {"noise_sampler": lambda a, b, left=left: next(left)}
                    x = sample(denoise, torch.from_numpy(start) * sigmas[0], sigmas, disable=True, **given)
                    found[f"{name} {schedule} {steps} {churn:g}"] = x.numpy()
    for name, kind in (("euler", EDMEulerScheduler), ("dpm++2m", EDMDPMSolverMultistepScheduler)):
        for schedule in ("karras", "exponential"):
            scheduler = kind(SIGMA_MIN, SIGMA_MAX, sigma_schedule=schedule)
            scheduler.set_timesteps(12)
            x = torch.from_numpy(start) * scheduler.sigmas[0].double()
            found[f"diffusers {name} {schedule} sigmas"] = scheduler.sigmas.double().numpy()
            for i, time in enumerate(scheduler.timesteps):
                sigma = scheduler.sigmas[i].double()
                scaled = scheduler.scale_model_input(x, time)
                skip, out = scheduler.sigma_data**2 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25) ** 0.5
                raw = (denoise(x, sigma) - skip * x) / out  # what its network would have given
                assert torch.allclose(scaled, x / (sigma**2 + 0.25) ** 0.5)
                x = scheduler.step(raw, time, x).prev_sample.double()
            found[f"diffusers {name} {schedule}"] = x.numpy()
    np.savez_compressed(Path(__file__).parent / "recorded.npz", **found)
    print(len(found), "arrays")


if __name__ == "__main__":
    main()
