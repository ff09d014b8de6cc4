"""Functions that run in two processes of one gloo group, as a launcher would have started them."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

SECONDS = 100  # after which a process stops waiting for the other


class Processes:
    """Two processes that stay until :meth:`close`: they start in seconds, a test runs in one.

    Args:
        meeting_point: a file that does not exist yet, by which they find each other.
    """

    def __init__(self, meeting_point: Path) -> None:
        # forked, a child may wait for ever for threads of its parent
        self._pools = [
            ProcessPoolExecutor(
                1, get_context("spawn"), initializer=_join, initargs=(rank, meeting_point)
            )
            for rank in range(2)
        ]

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What ``function(*args)`` returns in each process; it must be found by import."""
        futures = [pool.submit(function, *args) for pool in self._pools]
        return [future.result(2 * SECONDS) for future in futures]

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown()


def _join(rank: int, meeting_point: Path) -> None:
    os.environ["LOCAL_RANK"] = str(rank)  # by which Lightning knows that it was launched
    torch.set_num_threads(1)
    timeout = timedelta(seconds=SECONDS)
    dist.init_process_group("gloo", f"file://{meeting_point}", timeout, rank=rank, world_size=2)
