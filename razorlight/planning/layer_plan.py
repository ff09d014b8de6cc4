"""How one layer stores: its entry in the plan."""

from dataclasses import dataclass

from razorlight.codecs import Codec

CHEAP = 128
"""Multiply-adds for an entry of a product that takes a CPU no longer than to encode and decode."""


@dataclass(frozen=True)
class LayerPlan:
    """How one layer stores.

    Attributes:
        codec: for a value that has no record yet.
        shares: Whether there is one record for each value. The layer then reads the record that is
            attached to its input, whichever layer made it, and attaches to its output a record that
            derives the output.
        max_rerun_cost: multiply-adds for an entry of the output up to which the product of this
            layer may be run again in backward, to derive the output. See
            :func:`razorlight.records.attach_product`.
        read_through_products: Whether the value of this layer is derived through the product that
            gave it, however many multiply-adds that takes.
    """

    codec: Codec
    shares: bool = False
    max_rerun_cost: float = 0
    read_through_products: bool = False

    def __str__(self) -> str:
        """What the report says of the layer."""
        again = ", run again" * (self.max_rerun_cost > 0)
        return f"{self.codec}{', shared' * self.shares}{again}"
