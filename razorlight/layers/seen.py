"""What razor layers meet while they run; the plan reports it."""

import warnings
from dataclasses import dataclass, field

from razorlight._torch import is_traced


@dataclass(eq=False)
class Seen:
    """What one layer met since it was converted.

    Attributes:
        name: the name of the layer.
        layer: the name of the layer's dense class.
        expected: the names of the functions that the forward should call.
        of_all: the objects of all layers of the same conversion, including this one.
        ran: Whether the forward ran and stored.
        called: the names of the functions that were replaced while the forward ran.
        left: the kinds of tensors that were left to torch.
    """

    name: str
    layer: str
    expected: frozenset[str] = frozenset()
    of_all: "list[Seen]" = field(default_factory=list, repr=False)
    ran: bool = False
    called: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    def leave_to_torch(self, kind: str) -> None:
        """Note that a function was left to torch, and warn once for each kind of tensor.

        Args:
            kind: the kind of tensor for which the function was left to torch, in words.
        """
        if is_traced():
            return
        if not any(kind in seen.left for seen in self.of_all):
            warnings.warn(
                f"razorlight: {self.name or 'the root'} ({self.layer}) meets {kind}, which is left "
                "to torch: such tensors are stored as in the dense network",
                stacklevel=2,
            )
        self.left.add(kind)
