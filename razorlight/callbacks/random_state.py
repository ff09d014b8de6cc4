"""Random numbers that go on where a checkpoint left them."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override


class RandomState(Callback):
    """Keeps the states of the random generators in checkpoints, and sets them when fit resumes.

    A run resumed from the end of an epoch then shuffles, drops out and augments as if it had never
    stopped. Two things differ: workers of a loader augment by generators of their own, and the rest
    of an interrupted epoch is shuffled anew.

    The generators are those of torch (on the CPU and on each CUDA device), NumPy and Python. Every
    rank gets the states of rank zero.

    Example:
        >>> import torch
        >>> state = RandomState()
        >>> saved = state.state_dict()  # as a checkpoint does
        >>> first = torch.rand(3)
        >>> state.load_state_dict(saved)  # as a run does that resumes
        >>> torch.equal(torch.rand(3), first)
        True
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    @override
    def state_dict(self) -> dict[str, Any]:
        # plain types: checkpoints load with weights_only=True
        kind, keys, *rest = np.random.get_state()
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
            "numpy": (kind, np.asarray(keys).tolist(), *rest),
            "python": random.getstate(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict
        # A schedule that asks for the number of steps starts the loader before on_fit_start. A
        # loader with workers draws the order of samples then.
        self._set_states()

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # on_train_start would be too late: the order of the samples is drawn by then
        if self._loaded and trainer.train_dataloader is None:
            self._set_states()

    def _set_states(self) -> None:
        torch.set_rng_state(self._loaded["torch"])
        for device, state in enumerate(self._loaded["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
        np.random.set_state(self._loaded["numpy"])
        random.setstate(self._loaded["python"])
