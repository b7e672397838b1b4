"""Prediction for every row: in memory, written chunk by chunk to Zarr, or lazily."""

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

__all__ = [
    "WHAT",
    "Score",
    "Tally",
    "predict_few",
    "predict_lazily",
    "predict_rows",
    "predict_to",
    "score_few",
    "score_rows",
]
