"""Laws of parameters: they are stored, taken, started again, and sampled from."""

from __future__ import annotations

import json
import pickle

import numpy as np

from streamgmm.model.families import settings_of
from streamgmm.model.mixture import Mixture, e_step
from streamgmm.testing.cases import Case, Laws, broken, close, joint


class ParameterLaws(Laws):
    """Tests of components as values."""

    def test_samples_are_of_the_density(self) -> None:
        """EM that starts from a mixture gains no more on its sample than chance allows (Wilks)."""
        for k, d, _ in self.sizes:
            mixture = self.mixture(np.random.default_rng([k, d]), k, d)
            rows, labels = mixture.sample(4000, np.random.RandomState(k))
            case = Case(mixture, np.ascontiguousarray(rows), mixture)
            if rows.shape != (4000, d) or len(labels) != 4000:
                broken("A sample of n rows is of shape (n, D)", case, shape=rows.shape)
            before, fitted = e_step(mixture, case.rows).log_likelihood, mixture
            for _ in range(30):
                fitted = Case(fitted, case.rows, mixture).step()[1]
            gain = e_step(fitted, case.rows).log_likelihood - before
            p = mixture.n_parameters
            most = p / 2 + 6 * np.sqrt(p) + 6
            if not gain <= most:
                broken(
                    "A sample is of the density: EM from the mixture that made 4000 rows gains "
                    "about p / 2 nats",
                    case,
                    gain=gain,
                    at_most=most,
                    p=p,
                )

    def test_arrays_make_the_same_components(self) -> None:
        """Components and statistics come back from their arrays, and from a pickle."""
        for case in self.cases():
            mixture, family = case.mixture, case.mixture.family
            k, d = mixture.n_components, mixture.n_features
            statistics = e_step(mixture, case.rows).components
            for what, arrays, shapes in (
                ("parameter_shapes", mixture.components.arrays(), family.parameter_shapes(k, d)),
                ("statistic_shapes", statistics.arrays(), family.statistic_shapes(k, d)),
            ):
                found = {name: array.shape for name, array in arrays.items()}
                if list(found.items()) != list(shapes.items()):
                    broken(
                        f"arrays() are those of {what}, in their order",
                        case,
                        arrays=found,
                        shapes=shapes,
                    )
                dtypes = {name: array.dtype for name, array in arrays.items()}
                if set(dtypes.values()) != {np.dtype(np.float64)}:
                    broken("Arrays are float64", case, dtypes=dtypes)
            json.dumps(settings_of(family))
            again = family.components(
                **{n: a.copy() for n, a in mixture.components.arrays().items()}
            )
            pickled = pickle.loads(pickle.dumps(mixture))
            here = mixture.posterior(case.rows).log_density
            for copy in (Mixture(mixture.weights, again), pickled):
                there = copy.posterior(case.rows).log_density
                if here.tobytes() != there.tobytes():
                    broken(
                        "Components of the same arrays say the same to the last bit",
                        case,
                        here=here,
                        there=there,
                    )
            if statistics.kind != family.name:
                broken(
                    "The kind of statistics is the name of their family",
                    case,
                    kind=statistics.kind,
                    name=family.name,
                )
            made = family.statistics(**statistics.arrays())
            if any(
                a.tobytes() != made.arrays()[n].tobytes() for n, a in statistics.arrays().items()
            ):
                broken("Statistics come back from their arrays", case)

    def test_a_model_that_was_sent_counts_the_same(self) -> None:
        """An E-step of an M-step's model has the same bits where the model came as a pickle.

        So it does on a worker of a cluster. Arrays that are views of others are packed in another
        order by pickling, and NumPy sums some products in the order in which values lie.
        """
        for case in self.cases(least=50):
            statistics, updated = case.step()
            sent, given = pickle.loads(pickle.dumps((updated, statistics.components)))
            here, there = (e_step(model, case.rows).components for model in (updated, sent))
            for name, value in here.arrays().items():
                if value.tobytes() != there.arrays()[name].tobytes():
                    broken(
                        "A model that was pickled has the same statistics to the last bit",
                        case,
                        name=name,
                        here=value,
                        there=there.arrays()[name],
                    )
            for name, value in statistics.components.merge(here).arrays().items():
                if value.tobytes() != given.merge(there).arrays()[name].tobytes():
                    broken("Statistics that were pickled merge to the same bits", case, name=name)

    def test_components_that_are_taken_are_as_they_were(self) -> None:
        """Each component alone has the density that it has in the mixture."""
        for case in self.cases():
            mixture = case.mixture
            out = mixture.posterior(case.rows, labels=True, resp=True)
            if not np.array_equal(out.labels, out.resp.argmax(axis=1)):
                broken("The label of a row is the component of most responsibility", case)
            total = np.logaddexp.reduce(joint(mixture, case.rows), axis=1)
            if not close(total, out.log_density, self.rtol):
                broken(
                    "take(j) is component j alone: all of them, weighted, give the density",
                    case,
                    taken=total,
                    mixture=out.log_density,
                )

    def test_components_that_are_started_again(self) -> None:
        """`reseed` moves those that it is told to, and leaves the others."""
        for case in self.cases(least=50):
            mixture = case.mixture
            lost = np.array([mixture.n_components - 1])
            again = mixture.reseed(lost, case.rows)
            before, after = mixture.components.arrays(), again.components.arrays()
            rest = np.arange(mixture.n_components - 1)
            same = mixture.take(rest).components.arrays()
            kept = again.take(rest).components.arrays()
            if any(not close(kept[name], value, self.rtol) for name, value in same.items()):
                broken(
                    "reseed leaves the other components as they are",
                    case,
                    before=before,
                    after=after,
                )
            if not np.isfinite(again.posterior(case.rows).log_density).all():
                broken("A mixture with a component that was started again has a density", case)
            if not close(again.weights.sum(), 1.0, self.rtol):
                broken("Weights sum to one", case, weights=again.weights)

    def test_a_component_without_rows_stays_as_it_is(self) -> None:
        """The M-step gives it weight zero, and keeps its parameters."""
        for case in self.cases(least=50):
            mixture = case.mixture
            weights = mixture.weights.copy()
            weights[0] = 0.0
            without = Mixture(weights / weights.sum(), mixture.components)
            updated = Case(without, case.rows, case.other).step()[1]
            here, there = (m.components.take(np.array([0])) for m in (without, updated))
            d = mixture.n_features
            shared = {n for n, s in mixture.family.parameter_shapes(7, d).items() if s[0] != 7}
            same = all(
                np.array_equal(here.arrays()[name], value)
                for name, value in there.arrays().items() if name not in shared
            )  # fmt: skip
            if updated.weights[0] != 0 or not same:
                broken(
                    "A component of weight zero stays as it is",
                    case,
                    before=here.arrays(),
                    after=there.arrays(),
                    weights=updated.weights,
                )

    def test_a_start_has_parameters(self) -> None:
        """From labels, of which -1 is for no component, and from responsibilities."""
        for case in self.cases(least=50):
            family, k = case.mixture.family, case.mixture.n_components
            labels = np.arange(len(case.rows)) % k
            labels[::5] = -1
            resp = np.random.default_rng(0).dirichlet(np.ones(k), len(case.rows))
            for how, given in (("labels", labels), ("responsibilities", resp)):
                components = family.start(family.begin(case.rows, None, given, k), {})
                mixture = Mixture(np.full(k, 1 / k), components)
                if not np.isfinite(mixture.posterior(case.rows).log_density).all():
                    broken(f"A start from {how} has a density", case, **components.arrays())
            every = labels % k
            hot = (every[:, None] == np.arange(k)).astype(np.float64)
            one, two = (family.begin(case.rows, None, r, k).arrays() for r in (every, hot))
            if any(not close(one[name], value, self.rtol) for name, value in two.items()):
                broken("Labels are responsibilities of zero and one", case, labels=one, resp=two)
