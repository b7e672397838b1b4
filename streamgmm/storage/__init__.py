"""Models on disk: Zarr groups with a format version, readable by any Zarr reader.

Nothing is pickled and loading runs no code: parameters and scalars are JSON in the attributes
of the group, arrays are arrays, and a SHA-256 of each is held beside them.

Only the metadata at the root makes a model. It is written last, in one step, and says where the
arrays are: a model that is saved over lies in the group's other slot until that moment. So a
process that is killed, or a disk that fills, leaves the old model or, where there was none,
something that says it is unfinished. This holds on file systems and object stores alike.
"""

from streamgmm.storage.mixture import load_mixture, save_mixture
from streamgmm.storage.model import StoredModel, check_free, is_model, load_group, save_model
from streamgmm.storage.values import is_numeric

__all__ = [
    "StoredModel",
    "check_free",
    "is_model",
    "is_numeric",
    "load_group",
    "load_mixture",
    "save_mixture",
    "save_model",
]
