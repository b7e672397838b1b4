"""Other libraries beside ours, those of them that are installed: their iterations, and their fits.

``pip install "streamgmm[peers]"`` brings them; none is needed by anything else.

Each runs in a process of its own (`benchmarks.remote`). `benchmarks.kernels` tells it when to
iterate, and it answers with the log-likelihood before; `benchmarks.time_to_model` tells it when
to fit, and it answers with the model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from statistics import median

import numpy as np

from benchmarks.remote import Failure, Remote
from streamgmm.model.mixture import Mixture

REG_COVAR = 1e-6  # on the diagonal of covariances, as scikit-learn and we have it
STORAGE = {"full": "full", "diag": "diagonal"}  # kinds of covariances, as oneDAL names them

Iteration = Callable[[], float]


@dataclass(frozen=True)
class Library:
    """Another library: how to run it, and how near to our log-likelihood it must come.

    `build` takes a start, rows and a number of threads. It is called in the process where the
    library is to run, and nothing else there has imported it: some settings are read only then.
    `module` and `distribution` are what is imported and installed, if not called as `name` is.
    """

    name: str
    kinds: tuple[str, ...]
    rtol: float
    note: str
    build: Callable[[Mixture, np.ndarray, int], Iteration]
    module: str = ""
    distribution: str = ""

    @property
    def version(self) -> str:
        """Of what is installed."""
        return version(self.distribution or self.name)

    def __str__(self) -> str:
        """For below the table."""
        return f"{self.name} {self.version}: {self.note}; to rtol {self.rtol:g}"


def pomegranate(mixture: Mixture, X: np.ndarray, threads: int) -> Iteration:
    """What an iteration of `GeneralMixtureModel.fit` does."""
    import torch
    from pomegranate.distributions import Normal
    from pomegranate.gmm import GeneralMixtureModel

    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float64)  # which the sums of responsibilities have
    kind = mixture.family.name
    covariances = mixture.components.covariances
    if kind == "spherical":  # a variance for every feature is what it averages, and starts from
        covariances = np.repeat(covariances[:, None], mixture.n_features, axis=1)
    components = [
        Normal(
            torch.tensor(mean),
            torch.tensor(covariance),
            covariance_type="sphere" if kind == "spherical" else kind,
            check_data=False,
        )
        for mean, covariance in zip(mixture.components.means, covariances, strict=True)
    ]
    model = GeneralMixtureModel(components, torch.tensor(mixture.weights), check_data=False)
    rows = torch.from_numpy(X)

    @torch.no_grad()
    def iterate() -> float:
        log_likelihood = float(model.summarize(rows))
        model.from_summaries()
        return log_likelihood

    return iterate


def torchgmm(mixture: Mixture, X: np.ndarray, threads: int) -> Iteration:
    """What an epoch of `GaussianMixture.fit` does, all rows a batch, without its trainer."""
    import torch
    from torchgmm.bayes.gmm.lightning_module import GaussianMixtureLightningModule
    from torchgmm.bayes.gmm.model import GaussianMixtureModel, GaussianMixtureModelConfig

    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float64)  # which its sums keep, whatever the module is cast to
    k, d = mixture.components.means.shape
    model = GaussianMixtureModel(GaussianMixtureModelConfig(k, d, mixture.family.name))
    model.component_probs.copy_(torch.tensor(mixture.weights))
    model.means.copy_(torch.tensor(mixture.components.means))
    model.precisions_cholesky.copy_(torch.tensor(mixture.components.precisions_cholesky))
    module = GaussianMixtureLightningModule(model, covariance_regularization=REG_COVAR)
    rows = torch.from_numpy(X)

    @torch.no_grad()
    def iterate() -> float:
        module.metric_nll.reset()
        module.on_train_epoch_start()
        module.training_step(rows, 0)
        module.on_train_epoch_end()
        return -float(module.metric_nll.compute()) * len(rows)

    return iterate


def gmmx(mixture: Mixture, X: np.ndarray, threads: int) -> Iteration:
    """The body of the loop in `EMFitter.fit`, compiled as that is."""
    os.environ["NPROC"] = str(threads)  # no flag of XLA's bounds its threads on a processor
    import jax
    from gmmx import EMFitter, GaussianMixtureModelJax

    start = (mixture.components.means, mixture.components.covariances, mixture.weights)
    model = GaussianMixtureModelJax.from_squeezed(
        *(np.asarray(parameter, np.float32) for parameter in start), mixture.family.name
    )
    fitter = EMFitter(reg_covar=REG_COVAR)
    rows = jax.numpy.asarray(X.astype(np.float32))

    @jax.jit
    def em(model: GaussianMixtureModelJax) -> tuple[jax.Array, GaussianMixtureModelJax]:
        mean, log_resp = fitter.e_step(rows, model)
        return mean, fitter.m_step(rows, model, log_resp)

    def iterate() -> float:
        nonlocal model
        mean, model = jax.block_until_ready(em(model))
        return float(mean) * len(rows)

    return iterate


def onedal(mixture: Mixture, X: np.ndarray, threads: int) -> Iteration:
    """`em_gmm` with one iteration a call, which takes no longer than one of many in a call.

    The ridge, which it lacks, is added between iterations.
    """
    import daal4py

    daal4py.daalinit(threads)
    k, d = mixture.components.means.shape
    full = mixture.family.name == "full"
    em = daal4py.em_gmm(
        nComponents=k,
        maxIterations=1,
        accuracyThreshold=0.0,
        covarianceStorage=STORAGE[mixture.family.name],
    )
    ridge = REG_COVAR * (np.eye(d) if full else np.ones((1, d)))
    weights, means = mixture.weights[None], mixture.components.means
    covariances = [
        covariance.reshape(ridge.shape) for covariance in mixture.components.covariances
    ]

    def iterate() -> float:
        nonlocal weights, means, covariances
        result = em.compute(X, weights, means, covariances)
        weights, means = result.weights, result.means
        covariances = [covariance + ridge for covariance in result.covariances]
        return float(result.goalFunction[0, 0])

    return iterate


ONEDAL = Library(
    "oneDAL",
    ("full", "diag"),
    1e-9,
    "`em_gmm` of daal4py, float64; what we add to covariances is added between its iterations",
    onedal,
    "daal4py",
    "daal",
)

LIBRARIES = (
    Library(
        "pomegranate",
        ("full", "diag", "spherical"),
        1e-6,
        "PyTorch, float64; nothing is added to covariances, where we add 1e-6",
        pomegranate,
    ),
    Library(
        "torchgmm",
        ("full", "tied", "diag", "spherical"),
        1e-9,
        "PyTorch, float64",
        torchgmm,
    ),
    Library(
        "gmmx",
        ("full", "diag"),
        1e-4,
        "JAX; float32 is all it takes, beside float64 of ours",
        gmmx,
    ),
    ONEDAL,
)


def installed() -> list[Library]:
    """Those that can be had here."""
    return [library for library in LIBRARIES if find_spec(library.module or library.name)]


@dataclass(frozen=True)
class Fitted:
    """A model that a library gave: parameters of a mixture of Gaussians, and iterations.

    `timings` are seconds of the parts of the fit, where the library tells them.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    n_iter: int
    converged: bool
    timings: dict[str, float] | None = None


def fit_onedal(
    X: np.ndarray, n_components: int, kind: str, threads: int
) -> Callable[[int, int], Fitted]:
    """Fits of oneDAL, given a seed and a number of trials; in the precision of the rows.

    Its own start is the best of some trials (20 by default): random rows as means, and ten
    iterations on all rows. From there it climbs by scikit-learn's rule: to 1e-3 nats a row, in
    at most 100 iterations.
    """
    import daal4py

    daal4py.daalinit(threads)
    options = {
        "nComponents": n_components,
        "covarianceStorage": STORAGE[kind],
        "fptype": "float" if X.dtype == np.float32 else "double",
    }
    limit = 100
    em = daal4py.em_gmm(maxIterations=limit, accuracyThreshold=1e-3 * len(X), **options)

    def fit(seed: int, n_trials: int) -> Fitted:
        engine = daal4py.engines_mt19937(seed=seed)
        trials = daal4py.em_gmm_init(nTrials=n_trials, engine=engine, **options)
        start = trials.compute(X)
        end = em.compute(X, start.weights, start.means, start.covariances)
        covariances = np.array(end.covariances).reshape(
            (n_components, *X.shape[1:]) + X.shape[1:] * (kind == "full")
        )
        n_iter = int(end.nIterations[0, 0])
        return Fitted(end.weights[0], end.means, covariances, n_iter, n_iter < limit)

    return fit


class Peer(Remote):
    """EM of another library, an iteration at a time; what it took, and why it stopped."""

    def __init__(self, library: Library, mixture: Mixture, X: np.ndarray, threads: int) -> None:
        self.library = library
        self.seconds: list[float] = []
        super().__init__(library.build, (mixture, X), threads)

    def __call__(self) -> float:
        """Iterate once; the log-likelihood before, or NaN."""
        answer = self.ask()
        if isinstance(answer, Failure):
            self.failure = answer  # there is no going on after an iteration that failed
            return math.nan
        return float(answer)

    def note(self, seconds: float, value: float, ours: float) -> None:
        """Keep the time of an iteration, and notice a log-likelihood that is not ours."""
        difference = abs(value / ours - 1)
        if not self.failure and not difference <= self.library.rtol:
            self.failure = f"differs by {difference:.0e}"
        self.seconds.append(seconds)

    def cell(self, ours: float) -> str:
        """Seconds, and how often as long as ours."""
        if self.failure:
            return self.failure
        seconds = median(self.seconds)
        return f"{seconds:.3f} ({seconds / ours:.1f}×)"
