"""Where something is stored: a local path, a URL that fsspec opens, or a Zarr store.

Rows, models, outputs, checkpoints and states of followers are all given as one of these. Each is
parsed to a `Place` where it enters the package; everything inside is given the `Place`. What
fails for a moment in a store that is far away is tried again (`retry.py`).
"""

from __future__ import annotations

from streamgmm.places.place import Place, ZarrStore

__all__ = ["Place", "ZarrStore"]
