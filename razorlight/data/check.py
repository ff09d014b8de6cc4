"""All that can be wrong with data, found before a run: each file is read once."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, zip_longest
from math import sqrt
from typing import Any

from razorlight.data.base import RazorDataModule
from razorlight.data.class_balance import balancing_weights, positive_weights
from razorlight.data.held_out import Split
from razorlight.data.looks import Look, PerBand, looks
from razorlight.data.samples import Samples
from razorlight.data.transforms import IGNORE_INDEX
from razorlight.errors import RazorError
from razorlight.protocols import Labelled, Measured, MultiLabelled

Watch = Callable[[Iterable[Look], int, Split], Iterable[Look]]
"""Passes looks on while they are made, such as a bar; is given their number and split."""


@dataclass
class SplitFacts:
    """What the samples of a split are.

    Attributes:
        samples: how many there are.
        problems: for each sample that cannot be used, why.
        sizes: height and width of the images, with their numbers.
        modes: kinds of the image files, with their numbers.
        turned: images that their EXIF data turn.
        repeated: images with the content of another one of the split.
        names: a name by the content of the image.
        doubtful: pairs of images of one content with unlike targets.
        labels: images of each class, or pixels.
        numbers: for each usable sample, the numbers that a regression learns.
        images_with: images that have the label.
        depths: the nearest and the farthest depth, in metres; None where there are none.
    """

    samples: int = 0
    problems: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    turned: int = 0
    repeated: int = 0
    names: dict[bytes, str] = field(default_factory=dict)
    doubtful: list[tuple[str, str]] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)
    numbers: list[tuple[float, ...]] = field(default_factory=list)
    images_with: Counter[int] = field(default_factory=Counter)
    depths: tuple[float, float] | None = None
    _target_of: dict[bytes, Any] = field(default_factory=dict)
    _mean: list[float] = field(default_factory=list)
    _square: list[float] = field(default_factory=list)
    _measured: float = 0

    def add(self, look: Look) -> None:
        """Add a sample."""
        self.samples += 1
        if look.problem:
            self.problems.append(look.problem)
            return
        self.sizes[look.size] += 1
        self.modes[look.mode] += 1
        self.turned += look.turned
        first = self.names.setdefault(look.digest, look.name)
        target = look.labels, look.numbers
        if first != look.name:
            self.repeated += 1
            if self._target_of[look.digest] != target:
                self.doubtful.append((first, look.name))
        self._target_of.setdefault(look.digest, target)
        self.labels.update(look.labels)
        if look.numbers:
            self.numbers.append(look.numbers)
        self.images_with.update(look.labels.keys())
        self._mean = _added(self._mean, look.mean)
        self._square = _added(self._square, look.square)
        self._measured += look.measured
        if look.depths:
            near, far = self.depths or look.depths
            self.depths = (min(near, look.depths[0]), max(far, look.depths[1]))

    @property
    def usable(self) -> int:
        """How many samples can be used."""
        return self.samples - len(self.problems)

    @property
    def measured(self) -> float:
        """Mean share of the pixels that have a depth."""
        return self._measured / max(1, self.usable)

    @property
    def ignored(self) -> float:
        """Share of the pixels that count for nothing."""
        return self.labels[IGNORE_INDEX] / max(1, self.labels.total())

    @property
    def mean(self) -> PerBand:
        """Mean of each channel, in 0..1 where images are of 8 bits, each image alike."""
        return tuple(total / max(1, self.usable) for total in self._mean)

    @property
    def std(self) -> PerBand:
        """Standard deviation of each channel, likewise."""
        squares = (total / max(1, self.usable) for total in self._square)
        pairs = zip(squares, self.mean, strict=True)
        return tuple(sqrt(max(0.0, square - mean**2)) for square, mean in pairs)


def _added(totals: Sequence[float], values: PerBand) -> list[float]:
    return [total + value for total, value in zip_longest(totals, values, fillvalue=0.0)]


@dataclass
class DataCheck:
    """What was found in the data of a run.

    Attributes:
        splits: facts of each split that could be found.
        missing: for each split that could not, why.
        class_names: names of the classes; empty where targets are no classes.
        target_names: names of the numbers that a regression learns; empty elsewhere.
        is_multi_label: Whether an image may have several classes.
        unfit: why targets cannot be learned, though each can be read.
    """

    splits: dict[Split, SplitFacts]
    missing: dict[Split, str]
    class_names: Sequence[str]
    target_names: Sequence[str] = ()
    is_multi_label: bool = False
    unfit: Sequence[str] = ()

    @property
    def faults(self) -> list[str]:
        """Why ``fit`` would fail, a line each."""
        needed: tuple[Split, ...] = ("train", "val")
        lines = [self.missing[split] for split in needed if split in self.missing]
        lines += [p for s in needed if s in self.splits for p in self.splits[s].problems]
        return [*dict.fromkeys([*lines, *self.unfit])]

    @property
    def warnings(self) -> list[str]:
        """What ``fit`` would put up with, a line each."""
        lines = [f"test: {problem}" for problem in self._of_test()]
        for name, facts in self.splits.items():
            unseen = [
                each for label, each in enumerate(self.class_names) if not facts.labels[label]
            ]
            if unseen and facts.usable and name != "test":
                void = f"; {facts.ignored:.0%} of the pixels are ignored" if facts.ignored else ""
                lines.append(f"{name}: no sample is of {_some(unseen)}{void}")
            if facts.doubtful:
                pair = " and ".join(facts.doubtful[0])
                lines.append(
                    f"{name}: {len(facts.doubtful)} images are there twice, with unlike targets, "
                    f"first {pair}"
                )
        for one, other in combinations(self.splits, 2):
            names, others = self.splits[one].names, self.splits[other].names
            if shared := sorted(names.keys() & others.keys(), key=lambda digest: names[digest]):
                pair = f"{names[shared[0]]} and {others[shared[0]]}"
                lines.append(f"{one} and {other} share {len(shared)} images, first {pair}")
        return lines

    def _of_test(self) -> list[str]:
        facts = self.splits.get("test", SplitFacts())
        return [*([self.missing["test"]] if "test" in self.missing else []), *facts.problems]

    @property
    def class_weights(self) -> list[float]:
        """Weights under which all classes count alike in training; empty without classes.

        Where an image may have several, they are those of the images that have a class.
        """
        if self.is_multi_label:
            return positive_weights(self.shares("train"))
        facts = self.splits.get("train", SplitFacts())
        return balancing_weights([facts.labels[label] for label in range(len(self.class_names))])

    def shares(self, split: Split) -> list[float]:
        """The share of each class in a split: of its images, or of the pixels with a class."""
        facts, labels = self.splits.get(split, SplitFacts()), range(len(self.class_names))
        total = facts.usable if self.is_multi_label else sum(facts.labels[n] for n in labels)
        return [facts.labels[label] / max(1, total) for label in labels]


def check_data(
    data: RazorDataModule, watch: Watch = lambda found, total, split: found
) -> DataCheck:
    """Read every image, class and map of a data module once, by its ``num_workers`` processes.

    Args:
        data: a data module; nothing of it is changed.
        watch: sees each look as it is made.

    Raises:
        RazorError: if the data are missing altogether.
    """
    data.prepare_data()
    splits: dict[Split, SplitFacts] = {}
    missing: dict[Split, str] = {}
    for split in data.splits:
        try:
            samples: Samples = data.samples(split)
        except RazorError as error:
            missing[split] = str(error)
            continue
        facts = splits[split] = SplitFacts()
        for look in watch(looks(samples, data.num_workers), len(samples), split):
            facts.add(look)
    targets = data.target_names if isinstance(data, Measured) else ()
    is_multi_label = isinstance(data, MultiLabelled)
    unfit = () if missing else _unfit(data)
    return DataCheck(splits, missing, _class_names(data), targets, is_multi_label, unfit)


def _unfit(data: RazorDataModule) -> Sequence[str]:
    try:
        if isinstance(data, Measured):
            data.target_moments()
    except RazorError as error:
        return (str(error),)
    return ()


def _class_names(data: RazorDataModule) -> Sequence[str]:
    try:
        return data.class_names if isinstance(data, Labelled) else ()
    except RazorError:  # the training split is missing, which is said already
        return ()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in names[:3]) + more
