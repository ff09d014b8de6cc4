"""Records: a record stands for a value until backward, and layers share it.

``readers.py`` says how a value is read back from stored tensors. ``caching.py`` reads a value once
for several readers, and a large one in chunks. ``record.py`` has the record, which is a reader with
its tensors. ``encoding.py`` makes a record with a codec. ``sharing.py`` attaches records to
tensors, and finds them there.
"""

from razorlight.records.caching import Cached, in_chunks, room_for
from razorlight.records.encoding import as_stored_layout, encoded_record, record_of
from razorlight.records.readers import Decode, Derive, Join, Reader, ReadSamples, Same, samples_of
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
    "in_chunks",
    "join",
    "made_from",
    "product_of",
    "record_of",
    "room_for",
    "samples_of",
    "store",
]
