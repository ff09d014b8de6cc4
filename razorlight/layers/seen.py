"""What razor layers meet while they run, for those who ask what a conversion came to."""

import warnings
from dataclasses import dataclass, field

from razorlight._torch import is_traced


@dataclass(eq=False)
class Seen:
    """What one layer met since it was converted.

    Attributes:
        name: of the layer.
        layer: the name of its dense class.
        expected: the functions that its forward should call.
        of_all: what the layers of the same conversion met, this one among them.
        ran: whether it ran in a way that stores.
        called: the names of functions that were replaced in it.
        left: kinds of tensors that were left to torch.
    """

    name: str
    layer: str
    expected: frozenset[str] = frozenset()
    of_all: "list[Seen]" = field(default_factory=list, repr=False)
    ran: bool = False
    called: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)

    def leave_to_torch(self, kind: str) -> None:
        """Note that torch stores what the layer computes with such a tensor, and say it once.

        Args:
            kind: of the tensor, in words.
        """
        if is_traced():
            return
        if not any(kind in seen.left for seen in self.of_all):
            warnings.warn(
                f"razorlight: {self.name or 'the root'} ({self.layer}) meets {kind}; what a layer "
                "computes with such is left to torch, which stores it as in the dense network",
                stacklevel=2,
            )
        self.left.add(kind)
