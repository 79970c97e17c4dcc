"""A Ray cluster (Moritz et al. 2018, arXiv 1712.05889), for work that is worth spreading over machines."""

import os
import socket
from typing import Any

from rl_interp.core.errors import UserError


def connect(address: str, cores: int | None = None) -> None:
    """Connect this process to the cluster at `address`; "local" starts one on this machine, with so many cores (by
    default all). `ray.shutdown()` ends it.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError:
        raise UserError("Ray is not installed; `pip install rl-interp[distributed]` adds it.") from None
    code = {"env_vars": {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": code}
    try:
        if ":" in address:  # Ray itself would try for minutes
            host, port = address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        if address == "local":
            ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (OSError, RayError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster answers at {address!r} ({str(error).splitlines()[0][:120]}); start one with `ray start "
            "--head`, or give --ray local."
        ) from None
