"""Prediction for every row: in memory, written to Zarr or Parquet, or lazily."""

from streamgmm.predict.lazy import predict_lazily
from streamgmm.predict.rows import (
    WHAT,
    Score,
    predict_few,
    predict_rows,
    score_few,
    score_rows,
)
from streamgmm.predict.store import Tally, predict_to
from streamgmm.predict.table import predict_out

__all__ = [
    "WHAT",
    "Score",
    "Tally",
    "predict_few",
    "predict_lazily",
    "predict_out",
    "predict_rows",
    "predict_to",
    "score_few",
    "score_rows",
]
