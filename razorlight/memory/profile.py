"""The memory and the work of a step, layer by layer."""

from collections import defaultdict
from typing import Any

from torch import Tensor, UntypedStorage
from torch.utils.flop_counter import flop_registry

from razorlight._torch import stands_for, tree_leaves
from razorlight.memory.look import AGAIN, BACKWARD, Look

_FLOPS_A_BYTE = 50.0
"""The products that a device does while it moves a byte: some 10 on a CPU of two cores, and some
200 on a GPU in half precision."""


class Profile(Look):
    """Follows one step, and books memory and work by the layers of a network.

    Attributes:
        peaks: by what runs and layer, the most bytes that are alive then. A second forward counts
            as backward. What runs outside of the network is booked on the layer None, and the
            optimizer's step too.
        stored_by: as of :class:`Look`; the layer None also has what no layer has saved.
        work: by layer, the bytes that forward and backward move, and their products as so many
            bytes that take as long to move.
    """

    def __init__(self, *args: Any) -> None:
        self.peaks: dict[tuple[str, str | None], int] = defaultdict(int)
        self.work: dict[str | None, float] = defaultdict(float)
        super().__init__(*args)  # which notes what is alive already

    def note_stored(self) -> None:
        """Note what is stored, between forward and backward."""
        super().note_stored()
        self.stored_by[None] += self.stored - sum(self.stored_by.values())

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = super().__torch_dispatch__(func, types, args, kwargs)
        work = _work(func, args, kwargs or {}, output)
        self.work[self._place()[1]] += work * stands_for()
        return output

    def _note(self, storage: UntypedStorage) -> None:
        super()._note(storage)
        what, layer = self._place()
        place = (BACKWARD if what == AGAIN else what), layer
        self.peaks[place] = max(self.peaks[place], self.live)


def _work(func: Any, args: Any, kwargs: dict[str, Any], output: Any) -> float:
    if func.overloadpacket in flop_registry:
        flops: float = flop_registry[func.overloadpacket](*args, **kwargs, out_val=output)
        return flops / _FLOPS_A_BYTE
    given, made = ([t for t in tree_leaves(x) if isinstance(t, Tensor)] for x in (args, output))
    before = {id(t.untyped_storage()) for t in given}
    is_view = all(id(t.untyped_storage()) in before for t in made)
    if is_view and not func._schema.is_mutable:
        return 0
    return sum(t.nbytes for t in (*given, *made))
