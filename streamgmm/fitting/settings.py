"""What to fit and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streamgmm.model.moments import Floats


@dataclass(frozen=True)
class FitSettings:
    """What to fit and how, validated by whoever builds it."""

    n_components: int
    covariance_type: str = "full"
    tol: float = 1e-3
    reg_covar: float = 1e-6
    max_iter: int = 100
    n_init: int = 1
    init_params: str = "kmeans"
    weights_init: Floats | None = None
    means_init: Floats | None = None
    precisions_init: Floats | None = None
    algorithm: Literal["em", "incremental", "auto"] = "auto"
    acceleration: Literal["anderson", "auto"] | None = "auto"
    block_size: int | str = "auto"
    empty_components: Literal["keep", "retire", "reseed"] = "keep"
    on_bad_chunk: Literal["raise", "skip"] = "raise"
    cache: Literal["auto"] | None = "auto"
