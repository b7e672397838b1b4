"""Compiled inner loops: one block of rows in, sums out. No Dask and no Zarr here."""

from streamgmm.kernels.drivers import (
    diag_sums,
    full_sums,
    posterior,
    spherical_sums,
    tied_sums,
)

__all__ = ["diag_sums", "full_sums", "posterior", "spherical_sums", "tied_sums"]
