"""Records: what a value leaves behind for backward, and how layers share it.

``readers`` say how a value is read back from stored tensors, a ``record`` is a reader with its
tensors, ``encoding`` makes a record with a codec, and ``sharing`` attaches records to tensors and
finds them there.
"""

from razorlight.records.encoding import as_stored_layout, encoded_record, record_of
from razorlight.records.readers import (
    Cached,
    Decode,
    Derive,
    Join,
    Reader,
    ReadSamples,
    Same,
    in_pieces,
    room_for,
)
from razorlight.records.record import NOTHING, Record, as_it_is, join, product_of
from razorlight.records.sharing import (
    LinearOutput,
    MadeFrom,
    attach_encoded,
    attach_product,
    attach_record,
    carry_joined,
    carry_record,
    find,
    forget_leaves,
    made_from,
    store,
)

__all__ = [
    "NOTHING",
    "Cached",
    "Decode",
    "Derive",
    "Join",
    "LinearOutput",
    "MadeFrom",
    "ReadSamples",
    "Reader",
    "Record",
    "Same",
    "as_it_is",
    "as_stored_layout",
    "attach_encoded",
    "attach_product",
    "attach_record",
    "carry_joined",
    "carry_record",
    "encoded_record",
    "find",
    "forget_leaves",
    "in_pieces",
    "join",
    "made_from",
    "product_of",
    "record_of",
    "room_for",
    "store",
]
