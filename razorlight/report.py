"""What a conversion did, layer by layer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.table import Table

from razorlight.layers.seen import Seen


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
    """What :func:`razorlight.razor_` did: one line for each layer, in the model's order.

    Attributes:
        lines: of the layers.
        seen: what converted layers met while they ran, up to now.
        held: one line for each holder of dense values that stayed alive in the first step, where
            that was looked at (:class:`razorlight.memory.ValuesWatch`).
    """

    lines: tuple[Line, ...]
    seen: Sequence[Seen] = field(default=(), compare=False, repr=False)
    held: tuple[str, ...] = field(default=(), compare=False, repr=False)

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

    def warnings(self) -> list[str]:
        """One line for each thing found up to now, while converted layers ran."""
        return [*self.never_called(), *self.left_to_torch(), *self.held]

    def never_called(self) -> list[str]:
        """One line for each class of layers that never called what it is registered for."""
        lines = []
        for layer in dict.fromkeys(seen.layer for seen in self.seen if seen.ran):
            ran = [seen for seen in self.seen if seen.layer == layer and seen.ran]
            never = ran[0].named.difference(*(seen.called for seen in ran))
            if never:
                lines.append(
                    f"{_names(ran)} never called {', '.join(sorted(never))}, for which its class "
                    "is registered: register what its forward calls"
                )
        return lines

    def left_to_torch(self) -> list[str]:
        """One line for each kind of tensor that was left to torch."""
        lines = []
        for kind in sorted({kind for seen in self.seen for kind in seen.left}):
            met = [seen for seen in self.seen if kind in seen.left]
            lines.append(f"{_names(met)} met {kind}, which is left to torch")
        return lines

    def __str__(self) -> str:
        """A table of 80 columns that names every layer."""
        table = Table("layer", "class", "stored as, or why it is left dense", expand=True)
        for line in self.lines:
            style = {"converted": None, "skipped": "dim", "near miss": "yellow"}[line.status]
            table.add_row(line.name or "(root)", line.layer, line.detail, style=style)
        console = Console(width=80)
        with console.capture() as captured:
            console.print(table)
        return "\n".join([f"{captured.get()}{self.summary()}", *self.warnings()])


def _names(seen: Sequence[Seen]) -> str:
    more = f", and {len(seen) - 1} more," if len(seen) > 1 else ""
    return f"{seen[0].name or 'the root'} ({seen[0].layer}){more}"
