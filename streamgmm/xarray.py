"""Import this to have ``ds.streamgmm.predict(model)`` on xarray's datasets and arrays.

It is there without this import where xarray was imported before a name of `streamgmm` was used,
or a model was loaded or fitted to a dataset: xarray has no entry points for accessors, and
``import streamgmm`` does not import xarray.
"""

from __future__ import annotations

import xarray as xarray

from streamgmm.sources.accessor import Accessor as Accessor
from streamgmm.sources.accessor import register

register()
