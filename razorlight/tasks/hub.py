"""Hugging Face's hub, asked once whether it can be reached: it would be tried five times a file."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from urllib.parse import urlparse
from urllib.request import getproxies

from huggingface_hub import constants
from lightning.pytorch.utilities import rank_zero_info

PATIENCE = 4.0
"""Seconds within which the hub must answer."""


@contextmanager
def hub_or_cache() -> Iterator[bool]:
    """Let downloads read the hub's cache alone while the hub cannot be reached.

    Yields:
        Whether the hub may be asked.
    """
    before = constants.HF_HUB_OFFLINE
    online = not before and _answers(constants.ENDPOINT)
    if not online and not before:
        host = urlparse(constants.ENDPOINT).hostname
        rank_zero_info(f"weights: {host} cannot be reached; its cache on this machine is read")
    constants.HF_HUB_OFFLINE = not online
    try:
        yield online
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(url: str) -> bool:
    """Whether the machine behind ``url``, or the proxy that stands for it, takes a connection."""
    proxies = getproxies()
    parts = urlparse(proxies.get(urlparse(url).scheme, url))
    port = parts.port or (443 if parts.scheme == "https" else 80)
    answers: list[bool] = []

    def ask() -> None:
        try:
            socket.create_connection((parts.hostname, port), PATIENCE).close()
            answers.append(True)
        except OSError:
            pass

    # a thread, because looking a name up has no timeout
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers)
