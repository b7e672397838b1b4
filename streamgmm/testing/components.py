"""The laws of a family of components, as tests to inherit."""

from __future__ import annotations

import numpy as np

from streamgmm.fitting.ascent import Ascent
from streamgmm.fitting.rules import Rules
from streamgmm.model.mixture import Mixture, e_step, free_energy, m_step
from streamgmm.testing.cases import Case, broken
from streamgmm.testing.parameters import ParameterLaws
from streamgmm.testing.statistics import StatisticsLaws


class ComponentsTests(StatisticsLaws, ParameterLaws):
    """Laws that every family obeys; derive a class whose name begins with ``Test``.

    Give `mixture`. The family must need no regularisation on a few hundred rows of its own, and
    have none where that would move the maximum of its likelihood.

    Attributes
    ----------
    sizes : sequence of (K, D, n)
        Components, features and rows of the cases, the smallest first.
    rtol : float
        Relative error that rounding may leave.
    free : int or None
        How many of the parameters that are stored are free, where the others follow from them.
    """

    def test_the_likelihood_never_falls(self) -> None:
        """Ten steps of EM."""
        for case in self.cases():
            mixture, before = case.mixture, -np.inf
            for i in range(10):
                statistics, mixture = Case(mixture, case.rows, case.other).step()
                now = statistics.log_likelihood
                if not now >= before - self.rtol * abs(now):
                    broken(
                        f"The log-likelihood never falls; it did in step {i}",
                        case,
                        before=before,
                        after=now,
                    )
                before = now

    def test_the_m_step_is_a_maximum(self) -> None:
        """No components near those of the M-step have a greater expected log-likelihood.

        Near are those of `near`, and those of statistics with a share from other rows.
        """
        for case in self.cases(least=50):
            statistics, updated = case.step()
            best = free_energy(updated, statistics)
            rng = np.random.default_rng(0)
            for _ in range(40):
                components = self.near(updated.components, rng)
                if components is None:
                    continue
                found = free_energy(Mixture(updated.weights, components), statistics)
                if found > best + self.rtol * abs(best):
                    broken(
                        "The M-step maximises the expected log-likelihood; components a little "
                        "off have more",
                        case,
                        M_step=best,
                        near=found,
                        M_step_arrays=updated.components.arrays(),
                        near_arrays=components.arrays(),
                    )
            rest = e_step(case.other, case.rows)
            far = e_step(case.other, case.other.sample(200, np.random.RandomState(1))[0])
            for what, part in (("the rows under another mixture", rest), ("other rows", far)):
                for share in (0.3, 0.03, 0.003):
                    there = part.scale(share * statistics.weight / part.weight)
                    near = m_step(updated, statistics.scale(1 - share).merge(there))
                    found = free_energy(Mixture(updated.weights, near.components), statistics)
                    if found > best + self.rtol * abs(best):
                        broken(
                            "The M-step maximises the expected log-likelihood; components of "
                            f"statistics with a share of {share} from {what} have more",
                            case,
                            M_step=best,
                            near=found,
                        )

    def test_an_accelerated_climb_ends_as_high(self) -> None:
        """F of a climb with jumps never falls, and ends no lower than without."""
        for case in self.cases(least=50):
            ends = []
            for accelerate in (False, True):
                ascent = Ascent(case.mixture, Rules(1e-9, 2000, accelerate=accelerate))
                while (request := ascent.request) is not None:
                    found = e_step(request.mixture, case.rows, centres=request.centres)
                    ascent.advance(found, 1.0)
                energies = np.array([step.free_energy for step in ascent.steps])
                falls = np.diff(energies) < -self.rtol * np.abs(energies[1:])
                if falls.any():
                    broken(
                        "F never falls in a climb, with jumps or without",
                        case,
                        jumps=accelerate,
                        at=int(falls.argmax()),
                        F=energies,
                    )
                ends.append(energies[-1])
            if ends[1] < ends[0] - 1e-3 * len(case.rows):
                broken(
                    "A climb with jumps ends as high as one without",
                    case,
                    without=ends[0],
                    jumps=ends[1],
                )
