"""Laws of statistics: they merge, weigh, combine, and determine F."""

from __future__ import annotations

from functools import reduce

import numpy as np

from streamgmm.fitting.acceleration import combine, embed
from streamgmm.model.mixture import EStep, Mixture, Statistics, e_step, free_energy, m_step
from streamgmm.testing.cases import Case, Laws, broken, close, joint


class StatisticsLaws(Laws):
    """Tests of what an E-step leaves."""

    def test_statistics_merge_in_any_grouping(self) -> None:
        """Statistics of parts of rows, merged, are those of all rows; no rows change nothing."""
        for case in self.cases():
            n = len(case.rows)
            parts = [e_step(case.mixture, p) for p in np.split(case.rows, [n // 4, n // 2])]
            pooled = e_step(case.mixture, case.rows)
            a, b, c = parts
            self._same(
                "Statistics of parts, merged, are those of all rows: chunks do not matter",
                case,
                reduce(Statistics.merge, parts),
                pooled,
            )
            self._same("Merging is associative", case, a.merge(b.merge(c)), a.merge(b).merge(c))
            none = e_step(case.mixture, case.rows[:0])
            law = "Statistics of no rows are an identity of merge"
            self._same(law, case, none.merge(pooled), pooled)
            self._same(law, case, pooled.merge(none), pooled)
            step = EStep([(case.mixture, None)])
            for part in np.split(case.rows, [n // 3]):
                step.add(part)
            law = "Rows that are added piece by piece give the statistics of all"
            self._same(law, case, step.result()[0], pooled)

    def test_a_row_of_weight_w_counts_as_w_rows(self) -> None:
        """Weights multiply; rows of weight zero are as if they were not there."""
        for case in self.cases():
            counts = np.random.default_rng(0).integers(0, 3, len(case.rows))
            counts[0] = 1
            weighted = e_step(case.mixture, case.rows, counts.astype(np.float64))
            repeated = e_step(case.mixture, np.repeat(case.rows, counts, axis=0))
            self._same("A row of weight w counts as w rows", case, weighted, repeated)
            every = e_step(case.mixture, case.rows)
            twice = e_step(case.mixture, case.rows, np.full(len(case.rows), 2.0))
            self._same("scale(f) is every weight times f", case, every.scale(2.0), twice)

    def test_free_energy_plus_kl_is_the_log_likelihood(self) -> None:
        """F of an E-step is its log-likelihood; after an M-step, what is missing is KL ≥ 0."""
        for case in self.cases():
            statistics, updated = case.step()
            before = free_energy(case.mixture, statistics)
            if not close(before, statistics.log_likelihood, self.rtol):
                broken(
                    "F of an E-step at its own parameters is the log-likelihood of its rows: "
                    "expected_log_likelihood + entropy",
                    case,
                    F=before,
                    log_likelihood=statistics.log_likelihood,
                )
            sample = case.mixture.posterior(case.rows)
            if not close(sample.log_density.sum(), statistics.log_likelihood, self.rtol):
                broken(
                    "The posterior's log-densities add up to the E-step's log-likelihood",
                    case,
                    posterior=sample.log_density.sum(),
                    E_step=statistics.log_likelihood,
                )
            new = updated.posterior(case.rows)
            log_q = joint(case.mixture, case.rows) - sample.log_density[:, None]
            log_p = joint(updated, case.rows) - new.log_density[:, None]
            kl = float(np.sum(np.exp(log_q) * (log_q - log_p)))
            kl += self.latent_kl(case, updated)
            after = free_energy(updated, statistics)
            if not close(after + kl, new.log_density.sum(), self.rtol):
                broken(
                    "F + KL is the log-likelihood, at the parameters of the M-step too",
                    case,
                    F=after,
                    KL=kl,
                    log_likelihood=new.log_density.sum(),
                )

    def test_jumps(self) -> None:
        """A combination is affine, keeps F, and is measured in the Fisher metric."""
        for case in self.cases(least=50):
            first, updated = case.step()
            second = e_step(updated, case.rows)
            self._same(
                "combine with coefficients 0 and 1 is the last of the parts",
                case,
                combine([first, second], np.array([0.0, 1.0])),
                second,
            )
            mixed = combine([first, second], np.array([0.25, 0.75]))
            law = "combine with coefficients 1/4 and 3/4 is the merge of so many of both"
            self._same_components(law, case, mixed, first.scale(0.25).merge(second.scale(0.75)))
            self._metric(case, updated)

    def _metric(self, case: Case, updated: Mixture) -> None:
        """½ n |Δ|² of coordinates is what F loses at parameters that far from their maximum."""
        statistics = e_step(updated, case.rows)
        top = m_step(updated, statistics)
        origin = embed(top, statistics)
        if origin is None:
            return
        best, share = free_energy(top, statistics), 1e-5
        there = e_step(case.other, case.rows).scale(share)
        blended = statistics.scale(1 - share).merge(there)
        far = embed(top, blended)
        assert far is not None
        loss = best - free_energy(m_step(top, blended), statistics)
        length = 0.5 * statistics.weight * float(np.sum((far - origin) ** 2))
        if not close(length, loss, 0.1, 1e-9 * abs(best)):
            broken(
                "Coordinates are in the Fisher metric: ½ n |Δ|² is what F loses between two "
                "parameters that are near",
                case,
                half_n_square=length,
                loss=loss,
            )

    def _same(self, law: str, case: Case, found: Statistics | None, wanted: Statistics) -> None:
        """Two statistics of the same rows, in every number."""
        self._same_components(law, case, found, wanted)
        assert found is not None
        for name in ("weight", "log_likelihood", "entropy"):
            a, b = getattr(found, name), getattr(wanted, name)
            if not close(a, b, self.rtol, wanted.weight):
                broken(f"{law}; but not in {name}", case, found=a, wanted=b)

    def _same_components(
        self, law: str, case: Case, found: Statistics | None, wanted: Statistics
    ) -> None:
        if found is None:
            broken(f"{law}; but there is none", case)
        a, b = found.components.arrays(), wanted.components.arrays()
        used = b["weight"] > 1e-8  # fewer rows have no moments to compare
        for name, value in b.items():
            shared = len(value) != len(used)
            here, there = (v if shared else v[used] for v in (a[name], value))
            if not close(here, there, self.rtol):
                broken(f"{law}; but not in {name}", case, found=here, wanted=there)
