"""What a conversion did, layer by layer."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Line:
    """One layer of the report.

    Attributes:
        name: fully-qualified name in the model.
        layer: name of its dense class.
        status: "converted", "skipped" (known, and left dense) or "near miss" (a subclass or
            relative of a known layer, which is not registered).
        detail: the codec, or the reason.
    """

    name: str
    layer: str
    status: Literal["converted", "skipped", "near miss"]
    detail: str


@dataclass(frozen=True)
class Report:
    """What :func:`razorlight.razor_` did: one line for each layer, in the model's order."""

    lines: tuple[Line, ...]

    def only(self, status: str) -> list[Line]:
        """The lines of one status."""
        return [line for line in self.lines if line.status == status]

    def summary(self) -> str:
        """One line: how many layers were converted, and why others were not."""
        converted = self.only("converted")
        kinds = Counter(line.layer for line in converted)
        text = f"converted {len(converted)} of {len(self.lines)} layers"
        text += f" ({', '.join(f'{kind} {count}' for kind, count in kinds.most_common())})"
        return f"{text}; left dense: {left}" if (left := self.reasons()) else text

    def reasons(self) -> str:
        """The reasons of all layers that were left dense, with their counts."""
        left = [line for line in self.lines if line.status != "converted"]
        if not self.lines:
            return "it has no layer of a known class"
        reasons = Counter(line.detail for line in left)
        return ", ".join(f"{count} {reason}" for reason, count in reasons.items())

    def __str__(self) -> str:
        """A table of 80 columns that names every layer."""
        table = Table("layer", "class", "stored as, or why it is left dense", expand=True)
        for line in self.lines:
            style = {"converted": None, "skipped": "dim", "near miss": "yellow"}[line.status]
            table.add_row(line.name or "(root)", line.layer, line.detail, style=style)
        console = Console(width=80)
        with console.capture() as captured:
            console.print(table)
        return f"{captured.get()}{self.summary()}"
