"""Cases from small to large, and what is said of the first that breaks a law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from streamgmm.errors import DegenerateComponentError
from streamgmm.model.components import Components
from streamgmm.model.mixture import Mixture, Statistics, e_step, m_step
from streamgmm.model.moments import Floats


def broken(law: str, case: Any, **found: Any) -> NoReturn:
    """Fail: which law, in which case, and what was found instead."""
    facts = "".join(f"\n  {name} = {_short(value)}" for name, value in found.items())
    pytest.fail(f"{law}.\nThe smallest case that shows it is {case}:{facts}", pytrace=False)


def close(a: Any, b: Any, rtol: float, scale: float = 0.0) -> bool:
    """Whether numbers or arrays are equal but for rounding; `scale` is what they came from."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return False
    size = max(scale, float(np.abs(b).max(initial=0.0)))
    return bool(np.allclose(a, b, rtol=rtol, atol=rtol * size, equal_nan=True))


def joint(mixture: Mixture, rows: NDArray[Any]) -> Floats:
    """log π_k p(x | θ_k) of rows (n, K), from the components one by one."""
    each = [
        np.log(weight) + mixture.take(np.array([k])).posterior(rows).log_density
        for k, weight in enumerate(mixture.weights)
    ]
    return np.stack(each, axis=1)


def _short(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return repr(value)
    return np.array2string(value, threshold=24, precision=8)


@dataclass(frozen=True)
class Case:
    """Rows (n, D) of one mixture, and another mixture of K components under which they are."""

    mixture: Mixture
    rows: NDArray[Any]
    other: Mixture

    def __str__(self) -> str:
        """Sizes, and the rows where they are few."""
        n, d = self.rows.shape
        said = f"K = {self.mixture.n_components}, {n} rows of D = {d}"
        return f"{said}, {self.rows.tolist()}" if n * d <= 12 else said

    def step(self) -> tuple[Statistics, Mixture]:
        """An exact step of EM from the mixture: taken again where the family asks for it."""
        statistics = e_step(self.mixture, self.rows)
        updated = m_step(self.mixture, statistics)
        about = self.mixture.density.refine(updated.components)
        if about is not None:
            statistics = e_step(self.mixture, self.rows, centres=about)
            updated = m_step(self.mixture, statistics)
        return statistics, updated


class Laws:
    """What the laws of components share: a mixture to ask, and cases from small to large."""

    sizes: tuple[tuple[int, int, int], ...] = ((1, 1, 4), (2, 1, 60), (2, 3, 300), (4, 6, 900))
    rtol = 1e-8
    free: int | None = None

    def mixture(self, rng: np.random.Generator, k: int, d: int) -> Mixture:
        """A random mixture of K components of D features that overlap a little."""
        raise NotImplementedError("give a random mixture of your family")

    def near(self, components: Components, rng: np.random.Generator) -> Components | None:
        """Components a little off these; None where there are none.

        By default each of the `free` parameters times a number about one, or all of them times
        the same number. Where a family's parameters are bound to one another, as probabilities
        that sum to one, give others that keep to it.
        """
        share, one = rng.choice([0.1, 0.01, -0.01]), rng.random() < 0.5
        arrays = list(components.arrays().values())[: self.free]
        for i, array in enumerate(arrays):
            off = np.ones(array.shape) if one else rng.normal(size=array.shape)
            if off.shape[-2:] == 2 * off.shape[-1:]:
                off = off + np.swapaxes(off, -1, -2)
            if i == 0 or rng.random() < 0.5:
                arrays[i] = array * (1 + share * off)
        try:
            return components.family.of_parameters(*arrays)
        except DegenerateComponentError:
            return None

    def latent_kl(self, case: Case, updated: Mixture) -> float:
        """Σ r KL of the components' own latent variables, between two mixtures, in nats.

        From their posterior under ``case.mixture`` to that under `updated`. Zero where
        components have none.
        """
        return 0.0

    def cases(self, least: int = 0) -> Iterator[Case]:
        """Rows of one random mixture under another, the smallest first; `least` rows or more."""
        for seed, (k, d, n) in enumerate(self.sizes):
            if n < least:
                continue
            rng = np.random.default_rng([seed, k, d])
            truth, mixture, other = (self.mixture(rng, k, d) for _ in range(3))
            rows = truth.sample(n, np.random.RandomState(seed))[0]
            yield Case(mixture, np.ascontiguousarray(rng.permutation(rows)), other)
