"""The plan of a network: what each layer becomes, or why the layer stays dense."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Literal, NamedTuple

from razorlight.layers import Seen
from razorlight.patterns import without_numbers
from razorlight.planning import LayerPlan

Status = Literal["converted", "skipped", "near miss"]


@dataclass(frozen=True)
class Line:
    """The line of a plan for one layer.

    Attributes:
        name: fully-qualified name in the model.
        layer: name of the dense class.
        status: "converted", "skipped" (known, and left dense) or "near miss" (a subclass or
            relative of a known class, which is not registered itself).
        detail: words for how the layer stores, or why it stays dense.
        plan: the layer plan; None if the layer stays dense.
        runs_again: Whether the layer is a block that runs again in backward.
    """

    name: str
    layer: str
    status: Status
    detail: str
    plan: LayerPlan | None = None
    runs_again: bool = False

    def left_dense(self, why: str) -> "Line":
        """The line of a layer that stays dense; of one that does so anyway, this line."""
        return self if self.plan is None else Line(self.name, self.layer, "skipped", why)


class Group(NamedTuple):
    """Layers of one class that store alike.

    Attributes:
        layer: name of the dense class.
        status: as of :class:`Line`.
        detail: words for how the layers store, or why they stay dense.
        names: fully-qualified names in the model.
    """

    layer: str
    status: Status
    detail: str
    names: tuple[str, ...]

    def cells(self) -> tuple[str, str, str, str]:
        """The number of layers, their class, how they store, and where they are."""
        names = self.names if len(self.names) == 1 else map(without_numbers, self.names)
        places = [*dict.fromkeys(name or "(root)" for name in names)]
        where = places[0] if len(places) == 1 else f"{places[0]} ... {places[-1]}"
        return str(len(self.names)), self.layer, self.detail, where


_HEADINGS = ("", "class", "stored as, or why it is left dense", "where")

_LEGEND = """\
4 bits along tokens: neighbouring tokens of a channel share the levels.
shared: layers that need one value read one record of it.
run again: its product may run again in backward, in place of a stored output."""


@dataclass(frozen=True)
class Plan:
    """What each layer of a network becomes, as one line for each layer, in the model's order.

    A plan prints as a table of 80 columns, in which layers that store alike share a row. It can be
    saved to a YAML file (:meth:`save`), edited by hand, loaded again (:meth:`load`), and given
    to :func:`razorlight.razor_` or :class:`razorlight.BackRazor`.

    Attributes:
        lines: the lines of the layers.
        seen: notes of what the converted layers have met while they ran.
        held: one line for each holder of dense values that stayed alive in the first step, if a
            :class:`razorlight.memory.ValuesWatch` looked.

    Example:
        >>> import torch
        >>> from razorlight import Plan, razor_
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.Linear(8, 2))
        >>> plan = razor_(net)
        >>> plan.summary()
        'converted 2 of 3 layers (GELU 1, Linear 1); left dense: 1 first layer: ...'
    """

    lines: tuple[Line, ...]
    seen: Sequence[Seen] = field(default=(), compare=False, repr=False)
    held: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def layers(self) -> dict[str, LayerPlan]:
        """The layer plan of each converted layer, by name."""
        return {line.name: line.plan for line in self.lines if line.plan is not None}

    def only(self, status: Status) -> list[Line]:
        """The lines of one status."""
        return [line for line in self.lines if line.status == status]

    def only_blocks(self) -> "Plan":
        """The plan in which only the blocks that run again are converted."""
        lines = [line if line.runs_again else line.left_dense("not a block") for line in self.lines]
        return Plan(tuple(lines))

    def summary(self) -> str:
        """One line that says how many layers are converted, and why others stay dense."""
        converted = self.only("converted")
        kinds = Counter(line.layer for line in converted)
        text = f"converted {len(converted)} of {len(self.lines)} layers"
        text += f" ({', '.join(f'{kind} {count}' for kind, count in kinds.most_common())})"
        return f"{text}; left dense: {left}" if (left := self.reasons()) else text

    def reasons(self) -> str:
        """The reasons why layers stay dense, each with the number of layers."""
        left = [line for line in self.lines if line.status != "converted"]
        if not self.lines:
            return "the network has no layer of a known class"
        reasons = Counter(line.detail for line in left)
        return ", ".join(f"{count} {reason}" for reason, count in reasons.items())

    def warnings(self) -> list[str]:
        """One line for each problem that was found while converted layers ran."""
        return [*self.never_called(), *self.left_to_torch(), *self.held]

    def never_called(self) -> list[str]:
        """One line for each class of layers that never called a function of its registration."""
        lines = []
        for layer in dict.fromkeys(seen.layer for seen in self.seen if seen.ran):
            ran = [seen for seen in self.seen if seen.layer == layer and seen.ran]
            never = ran[0].expected.difference(*(seen.called for seen in ran))
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

    def groups(self) -> list["Group"]:
        """The layers of one class that store alike, group by group, in the model's order."""
        found: dict[tuple[str, Status, str], list[str]] = {}
        for line in self.lines:
            found.setdefault((line.layer, line.status, line.detail), []).append(line.name)
        return [Group(*kind, tuple(names)) for kind, names in found.items()]

    def __str__(self) -> str:
        """A table of 80 columns, with a row for each of :meth:`groups`."""
        from rich.console import Console  # imported here, because most runs print no table
        from rich.table import Table

        table = Table(*_HEADINGS, expand=True)
        for group in self.groups():
            style = {"converted": None, "skipped": "dim", "near miss": "yellow"}[group.status]
            table.add_row(*group.cells(), style=style)
        console = Console(width=80)
        with console.capture() as captured:
            console.print(table)
        return "\n".join([f"{captured.get()}{_LEGEND}", self.summary(), *self.warnings()])

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        rows = [_HEADINGS, *(group.cells() for group in self.groups())]
        cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        table = "".join(f"<tr>{row}</tr>" for row in cells)
        notes = [*_LEGEND.split("\n"), self.summary(), *self.warnings()]
        return f"<table>{table}</table>" + "".join(f"<p>{escape(note)}</p>" for note in notes)

    def save(self, path: str | Path) -> None:
        """Write the plan to a YAML file, which may be edited by hand.

        Args:
            path: path of the file. An existing file is replaced.
        """
        from razorlight.conversion.plan_file import write_plan

        write_plan(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> "Plan":
        """Read a plan from a YAML file that :meth:`save` wrote, edited by hand or not.

        Args:
            path: path of the file.

        Raises:
            RazorError: if there is no such file, or the file holds no plan. The message names the
                layer with the mistake.
        """
        from razorlight.conversion.plan_file import read_plan

        return read_plan(Path(path))


def _names(seen: Sequence[Seen]) -> str:
    more = f", and {len(seen) - 1} more," if len(seen) > 1 else ""
    return f"{seen[0].name or 'the root'} ({seen[0].layer}){more}"
