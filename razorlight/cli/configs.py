"""Configuration files: found by name, checked one by one, and copied into the run's folder."""

from argparse import ArgumentError
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import override

from razorlight import callbacks, data, tasks
from razorlight.config_files import find_config
from razorlight.files import replaced

NAMESPACES = (callbacks, data, tasks)
"""Modules whose classes have short names in configurations, such as ``class_path: BackRazor``.

jsonargparse looks for a short name among the classes that are imported, so these must be.
"""


class ConfigFile(ActionConfigFile):
    """``--config``: also finds shipped files by name, and names the file that is wrong."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        """Read the file into ``cfg``."""
        path = find_config(values)
        try:
            super().__call__(parser, cfg, path, option_string)
            # a later file may give a required key; an unknown key stays unknown
            parser.validate(cfg, skip_required=True)
        except (ArgumentError, OmegaConfBaseException, TypeError, KeyError, UnicodeError) as error:
            raise ArgumentError(None, f"{path}: {error}") from error


class WholeConfig(SaveConfigCallback):
    """Lightning's copy of the configuration, but it replaces a config.yaml as a whole."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        folder = trainer.log_dir  # asked by every rank
        if trainer.is_global_zero and not self.already_saved:
            with replaced(Path(folder or "") / self.config_filename) as new:
                new.write_text(self.parser.dump(self.config, skip_none=False))
        self.already_saved = True
