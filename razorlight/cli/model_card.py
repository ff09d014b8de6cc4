"""What a network that leaves its run should say of itself."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from razorlight.cli.exported import to_predict
from razorlight.cli.resuming import CONFIG
from razorlight.cli.runs import read_rows


@dataclass(frozen=True)
class ModelCard:
    """What is known of a trained network.

    Attributes:
        task: the class of the task.
        network: the arguments that make the network, such as ``{"model": "resnet50"}``.
        class_names: names of the classes, in the order of the outputs.
        targets: where outputs are numbers, their names, each with the mean and standard deviation
            of its number: output times deviation, plus mean, is in the units of the data.
        mean: what is subtracted from each channel of an image, of values in 0..1 where images are
            of 8 bits.
        std: what each channel is divided by after that.
        bands: numbers of the bands of the images, from 1, in the order of the inputs; empty for
            pictures.
        dtype: dtype of these bands. Those of 8 bits are divided by 255 before all else.
        image_size: side, or height and width, of the images in training, in pixels.
        recipe: how the run stored for backward, or "dense".
        scores: what the run's checkpoints were chosen by, and its value in the epoch of this one.
        epoch: the number of the epoch in which the checkpoint was saved.
        to_predict: see :func:`razorlight.cli.exported.to_predict`.
    """

    task: str = "unknown"
    network: Mapping[str, Any] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    targets: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    bands: Sequence[int] = ()
    dtype: str = ""
    image_size: int | Sequence[int] | None = None
    recipe: str = "unknown"
    scores: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None
    to_predict: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> str:
        """The card as one line of JSON."""
        return json.dumps(asdict(self))

    @property
    def channels(self) -> int:
        """How many channels the images have; 3 where nothing is known of them."""
        return len(self.mean) or 3

    @property
    def _values(self) -> str:
        """What the numbers of an image are, before they are normalised."""
        if not self.bands:
            return "RGB in 0..1"
        scale = "in 0..1" if self.dtype == "uint8" else "as stored"
        return f"bands {', '.join(map(str, self.bands))} of {self.dtype} {scale}"

    def markdown(self, name: str) -> str:
        """The card as a page.

        Args:
            name: the heading.
        """
        size = self.image_size
        rows = {
            "task": self.task,
            "network": ", ".join(f"{key} {value}" for key, value in self.network.items()),
            "input": f"{self._values}, minus mean {[*self.mean]}, divided by std {[*self.std]}",
            "image size in training": "" if size is None else f"{size} px",
            "classes": f"{len(self.class_names)}: {', '.join(self.class_names)}",
            "outputs": ", ".join(
                f"{name}: times {std:.6g}, plus {mean:.6g}"
                for name, (mean, std) in self.targets.items()
            ),
            "recipe": self.recipe,
            "scores": ", ".join(f"{key} {value:.4f}" for key, value in self.scores.items()),
            "epoch": self.epoch,
        }
        known = {key: value for key, value in rows.items() if value not in (None, "", "0: ")}
        lines = [f"| {key} | {_cell(value)} |" for key, value in known.items()]
        return "\n".join([f"# {name}", "", "| | |", "|---|---|", *lines, ""])


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


_OF_NETWORK = ("model", "architecture", "encoder", "model_args")


def card_of(checkpoint: Path, content: Mapping[str, Any]) -> ModelCard:
    """The card of the network in a checkpoint.

    Args:
        checkpoint: its path. The configuration is looked for in the run's folder.
        content: what it holds.
    """
    config = run_config(checkpoint)
    model = config.get("model") or {}
    arguments = model.get("init_args") or {}
    network = {key: arguments[key] for key in _OF_NETWORK if arguments.get(key)}
    facts = next(_facts(content), {})
    return ModelCard(
        task=str(model.get("class_path", "unknown")).rpartition(".")[2],
        network=network,
        class_names=facts.get("class_names", ()),
        targets=_targets(facts.get("target_names", ()), content.get("state_dict", {})),
        mean=facts.get("mean", ()),
        std=facts.get("std", ()),
        bands=facts.get("bands", ()),
        dtype=facts.get("dtype", ""),
        image_size=facts.get("image_size"),
        recipe=_recipe(config.get("razor")),
        scores=dict(_scores(checkpoint, content)),
        epoch=content.get("epoch"),
        to_predict=to_predict(config, facts, content.get("state_dict", {})),
    )


def _targets(names: Sequence[str], state: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each number that a regression tells."""
    if not names or "target_mean" not in state:
        return {}
    moments = zip(state["target_mean"].tolist(), state["target_std"].tolist(), strict=True)
    return dict(zip(names, moments, strict=True))


def run_config(checkpoint: Path) -> dict[str, Any]:
    """The configuration of the run that saved a checkpoint; empty if it lies elsewhere."""
    for folder in (checkpoint.parent.parent, checkpoint.parent):
        if (folder / CONFIG).is_file():
            config = yaml.safe_load((folder / CONFIG).read_text())
            return config if isinstance(config, dict) else {}
    return {}


def _recipe(razor: Any) -> str:
    """What the key ``razor`` of a configuration says."""
    if razor is False:
        return "dense"
    arguments = (razor.get("init_args") or razor) if isinstance(razor, dict) else {}
    if budget := arguments.get("memory_budget"):
        return f"within {budget}"
    return str(arguments.get("recipe") or "balanced") if razor is not None else "unknown"


def _facts(content: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What data modules of razorlight say of themselves, as ``RazorDataModule.state_dict``."""
    for part in content.values():
        if isinstance(part, Mapping) and {"mean", "std"} <= part.keys():
            yield part


def _scores(checkpoint: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """What checkpoints were chosen by, with its value in the epoch of this one."""
    for state in (content.get("callbacks") or {}).values():
        if isinstance(state, Mapping) and (name := state.get("monitor")):
            score = _logged(checkpoint.parent.parent / "metrics.csv", name, content.get("epoch"))
            is_best = Path(str(state.get("best_model_path"))).name == checkpoint.name
            if score is None and is_best and state.get("best_model_score") is not None:
                score = float(state["best_model_score"])
            if score is not None:
                yield str(name), score


def _logged(metrics: Path, name: str, epoch: int | None) -> float | None:
    """The last value of a metric in an epoch, as a CSV logger wrote it; None without one."""
    rows = [row for row in read_rows(metrics) if row.get("epoch") == str(epoch)]
    values = [value for row in rows if (value := row.get(name))]
    return float(values[-1]) if values else None
