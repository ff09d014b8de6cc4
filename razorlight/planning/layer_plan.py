"""The layer plan: how one layer stores."""

from dataclasses import dataclass

from razorlight.codecs import Codec

CHEAP = 128
"""The multiply-adds that a CPU does in the time in which it encodes and decodes one entry."""


@dataclass(frozen=True)
class LayerPlan:
    """How one layer stores.

    Attributes:
        codec: the codec of a value that has no record yet.
        shares: Whether all layers that need a value share one record. The layer then reads the
            record that is attached to its input, whichever layer made the record, and attaches to
            its output a record that derives the output.
        max_rerun_cost: the most multiply-adds for an entry of the output with which the product of
            this layer may run again in backward, to derive the output. See
            :func:`razorlight.records.attach_product`.
        read_through_products: Whether the layer reads a record that runs products again, however
            many multiply-adds they take.
    """

    codec: Codec
    shares: bool = False
    max_rerun_cost: float = 0
    read_through_products: bool = False

    def __str__(self) -> str:
        """The words of the report for the layer."""
        again = ", run again" * (self.max_rerun_cost > 0)
        return f"{self.codec.words}{', shared' * self.shares}{again}"
