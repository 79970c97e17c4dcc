"""Processes of our own, with what they import there from the start."""

import multiprocessing as mp
import sys
from multiprocessing.context import ForkServerContext, SpawnContext


def processes(*modules: str) -> ForkServerContext | SpawnContext:
    """Where processes are made that use these modules. They inherit nothing from this one but what they are given.

    On Linux they are forks of one that imports the modules once and does nothing else; elsewhere, where a fork is not
    safe after some libraries were imported, each is a new interpreter that imports them itself.
    """
    if sys.platform != "linux":
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *modules])
    return context
