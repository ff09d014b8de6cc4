"""Functions that stand for torch's functions, and store for backward by the plan of a layer.

Each function takes a :class:`~razorlight.planning.LayerPlan`, and then the arguments of the torch
function for which it stands (:data:`FUNCTIONS`). The output is bit for bit that of torch.
"""

from razorlight.functional.spellings import SPELLINGS, first_spelling, spellings_of
from razorlight.functional.table import FUNCTIONS, MOVES

__all__ = ["FUNCTIONS", "MOVES", "SPELLINGS", "first_spelling", "spellings_of"]
