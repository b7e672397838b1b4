"""What to fit and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from streamgmm.errors import ParameterError
from streamgmm.model.components import Family
from streamgmm.model.families import Gaussian, parse_family
from streamgmm.model.moments import Floats


@dataclass(frozen=True)
class FitSettings:
    """What to fit and how, validated by whoever builds it.

    `family` may be given by its name. `given` are initial parameters of the family, by name, as
    `Family.estimate` takes them. With hard `assignment` each row counts for its likeliest
    component alone: classification EM.

    >>> FitSettings(3, "diag").family
    Gaussian(covariance_type='diag', reg_covar=1e-06)
    """

    n_components: int
    family: Family = field(default_factory=Gaussian)
    tol: float = 1e-3
    max_iter: int = 100
    n_init: int = 1
    init_params: str = "kmeans"
    weights_init: Floats | None = None
    given: Mapping[str, Floats] = field(default_factory=dict)
    algorithm: Literal["em", "incremental", "auto"] = "auto"
    acceleration: Literal["anderson", "auto"] | None = "auto"
    block_size: int | str = "auto"
    empty_components: Literal["keep", "retire", "reseed"] = "keep"
    on_bad_chunk: Literal["raise", "skip"] = "raise"
    cache: Literal["auto"] | None = "auto"
    assignment: Literal["soft", "hard"] = "soft"

    def __post_init__(self) -> None:
        """Find a family by its name; raises ParameterError."""
        object.__setattr__(self, "family", parse_family(self.family))
        for name in self.given:
            if name not in self.family.initial:
                raise ParameterError(f"a fit of {self.family.name} takes no initial {name}")

    @property
    def any_given(self) -> bool:
        """Whether any initial parameter is given."""
        return bool(self.given) or self.weights_init is not None

    @property
    def all_given(self) -> bool:
        """Whether every initial parameter is given, so that there is one start."""
        initial = self.family.initial
        return bool(initial) and self.weights_init is not None and len(self.given) == len(initial)


def truncated(settings: FitSettings) -> bool:
    """Whether rows look at some of the components only.

    >>> truncated(FitSettings(100, Gaussian("diag", truncation=5)))
    True
    """
    size = getattr(settings.family, "truncation", None)
    return size is not None and size < settings.n_components
