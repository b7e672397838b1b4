"""Models on disk: Zarr groups with a format version, readable by any Zarr reader.

Nothing is pickled, and loading runs no code. Parameters and scalars are JSON in the attributes
of the group, arrays are Zarr arrays, and there is a SHA-256 of each.

A save is atomic. Arrays are written first, into the slot of the group that is not in use. Then a
commit replaces the metadata at the root, which say where the arrays are. So a process that is
killed, or a disk that fills, leaves the old model. If there was none, it leaves a group that is
marked as unfinished. This holds on file systems and in object stores.
"""

from streamgmm.storage.mixture import load_mixture, save_mixture
from streamgmm.storage.model import StoredModel, check_free, is_model, load_group, save_model
from streamgmm.storage.values import Packed, is_numeric

__all__ = [
    "Packed",
    "StoredModel",
    "check_free",
    "is_model",
    "is_numeric",
    "load_group",
    "load_mixture",
    "save_mixture",
    "save_model",
]
