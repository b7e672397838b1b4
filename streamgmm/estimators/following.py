"""`follow`: a model that is kept current with a source that grows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from streamgmm.errors import ModelFileError, ModelNotFoundError, ParameterError
from streamgmm.estimators.centred import LearningCentres
from streamgmm.estimators.learning import LearningMixture
from streamgmm.estimators.loading import load
from streamgmm.estimators.pipelines import Steps, apart, map_of
from streamgmm.estimators.storing import before
from streamgmm.online.following import (
    Feed,
    Followed,
    Session,
    TransformedFeed,
    open_feed,
    run,
)
from streamgmm.online.following.lock import only_follower
from streamgmm.online.following.stop import stoppable
from streamgmm.places import Place, ZarrStore
from streamgmm.sources import TransformedSource
from streamgmm.storage.model import is_unfinished

Model = LearningMixture | LearningCentres

BATCH_ROWS = 1_000
SAVE_ROWS = 100_000


def follow(
    source: Any,
    state: str | os.PathLike[str] | ZarrStore = "state.zarr",
    model: Any = None,
    *,
    once: bool = False,
    interval: float = 5.0,
    batch_rows: int = BATCH_ROWS,
    save_rows: int = SAVE_ROWS,
    labels: str | os.PathLike[str] | ZarrStore | None = None,
    log_density: str | os.PathLike[str] | ZarrStore | None = None,
    alarms: str | os.PathLike[str] | ZarrStore | None = None,
    partial_chunks: bool = False,
    skip_refused: bool = False,
    columns: Sequence[str] | None = None,
    format: str = "csv",
    replay: bool = True,
    branch: str = "main",
    array: str = "",
    storage_options: dict[str, Any] | None = None,
    on_batch: Callable[[Any, int], None] | None = None,
) -> Any:
    """Learn what a source has, and what is added to it, each row exactly once.

    The model and the position are saved in one atomic step. Killed at any moment and started
    again, the follower goes on from what was saved last, and the model comes out the same to
    the last bit as if it had never been killed. On SIGTERM it saves and returns.

    Parameters
    ----------
    source : str, path-like, zarr.Array, Zarr store, icechunk.Repository, file or iterable
        A Zarr array that grows by rows (only whole, finished chunks are read); a folder to which
        Zarr, npy or Parquet files are added whose names sort in that order; ``"-"`` for standard
        input, or an open binary file; an Icechunk repository, or ``"icechunk:PATH"``; or an
        iterable of arrays. Or rows of a cube or group in Zarr (`streamgmm.rows`) that grows along
        the first dimension of the samples; labels and densities have their shape, and grow too.
        Or rows of a Zarr array that a fitted scaler or projection transforms.
    state : str, path-like, URL or Zarr store, default="state.zarr"
        `streamgmm.load` reads the model in it, at any time.
    model : OnlineGaussianMixture, MixtureModel or KMeans, optional
        What to learn, where there is no state yet; a `MixtureModel` or `KMeans` that was fitted
        goes on from there. Or a pipeline that ends with one of these; the steps before it must be
        fitted, and stay as they are. Where there is a state, its model must be alike. `KMeans`
        finds its first centres from 200 rows a centre, 2,000 at least, and learns batches as
        `partial_fit`.
    once : bool, default=False
        Return when all that is there has been learned, instead of waiting for more.
    interval : float, default=5.0
        Seconds from one look to the next.
    batch_rows : int, default=1000
        Rows that are learned together. Batches begin anew with each chunk, file, commit or item.
    save_rows : int, default=100000
        Rows from one save to the next while there is more to read.
    labels, log_density, alarms : str, path-like, URL or Zarr store, optional
        Where to append each row's label, its log-density in nats, and the alarms, exactly once:
        lines of JSON for a name that ends in .ndjson or .jsonl, else a Zarr array. A row's are
        those of the model before it learned the row; the rows of the warm-up come when it ends.
    partial_chunks : bool, default=False
        Whether rows of a chunk that is not whole are read. What a batch is then depends on when
        the array was looked at.
    skip_refused : bool, default=False
        Whether a batch with NaN or infinity is passed over, instead of ending with an error. Its
        rows are labelled -1, of log-density NaN.
    columns : sequence of str, optional
        Columns of Parquet files.
    format : {"csv", "ndjson", "arrow"}, default="csv"
        Of standard input, or an open file.
    replay : bool, default=True
        Whether standard input or an iterable starts from its first row again when the follower
        does; the rows that were learned are then skipped.
    branch, array : str
        Of an Icechunk repository.
    storage_options : dict, optional
        For the file systems of URLs: of the source, the state and the outputs. A Zarr store has
        options of its own.
    on_batch : callable, optional
        Called with the model and the rows of a batch after each.

    Returns
    -------
    OnlineGaussianMixture, MixtureModel or KMeans

    Raises
    ------
    StateInUseError
        If another follower has this state, or has taken over.
    StoreError
        If the state is far away, and cannot be reached.
    SourceError
        If the source shrank, or was rewritten behind the position.
    ParameterError, ModelFileError
        If the state is of another model or source, or damaged.
    NonFiniteError
        If a batch has NaN or infinity; all before it is saved.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> batches = [np.random.default_rng(i).normal(size=(500, 2)) for i in range(4)]
    >>> from streamgmm import OnlineGaussianMixture
    >>> path = tempfile.mkdtemp() + "/state.zarr"
    >>> model = follow(batches, path, OnlineGaussianMixture(1, warm_up=100))
    >>> int(model.monitor_["rows"].sum())
    2000
    """
    if not interval > 0 or batch_rows < 1 or save_rows < 1:
        raise ParameterError("interval, batch_rows and save_rows must be positive")
    place = _place(state, storage_options)
    feed = open_feed(
        source, batch_rows=batch_rows, partial_chunks=partial_chunks, columns=columns,
        format=format, replay=replay, branch=branch, array=array, storage_options=storage_options,
    )  # fmt: skip
    paths = {"labels": labels, "log_density": log_density, "alarms": alarms}
    outputs = {
        name: _place(path, storage_options) for name, path in paths.items() if path is not None
    }
    with only_follower(place) as check, stoppable() as stop:
        whole, followed = open_state(place, model, kind_of(feed, source), check)
        feed = through(feed, whole)

        def tell(n_rows: int) -> None:
            if on_batch is not None:
                on_batch(whole, n_rows)

        layers = getattr(feed, "layers", None)
        session = Session(followed, place, outputs, save_rows, skip_refused, tell, layers)
        run(feed, session, stop, once=once, interval=interval)
    return whole


def open_state(
    place: Place, model: Any, kind: str, check: Callable[[], None] = lambda: None
) -> tuple[Any, Followed]:
    """Read what was saved, or start with `model`; give the model, and what follows for it.

    `check` is called before each save.

    Raises
    ------
    ParameterError
        If the state is of a model with other parameters, or of another kind of source; or if
        there is no state and no model.
    ModelFileError
        If it is no state of a follower, or damaged.
    """
    try:
        unfinished = is_unfinished(place)
    except ModelNotFoundError:
        unfinished = True
    except ModelFileError:
        folder = place.directory
        if folder is None or not folder.is_dir() or any(folder.iterdir()):
            raise
        unfinished = True
    if unfinished:
        if model is None:
            raise ParameterError(
                f"there is no state at '{place}' yet; pass model=OnlineGaussianMixture(…)"
            )
        return model, _followed(place, model, kind, check)
    whole, steps, model = model, *apart(model)
    if isinstance(model, LearningMixture):
        model._family()  # a family of one's own must be known before its state is read
    there = load(place)
    earlier, stored = apart(there)
    follow = stored.__dict__.get("follow_")
    if not isinstance(stored, LearningMixture | LearningCentres) or follow is None:
        raise ModelFileError(
            f"'{place}' holds a {type(stored).__name__} that follows nothing; give another path "
            "for the state"
        )
    if whole is not None:
        mine, theirs = _params(model), _params(stored)
        if type(model) is not type(stored):
            raise ParameterError(
                f"state '{place}' is of a {type(stored).__name__}, not of a "
                f"{type(model).__name__}; give its parameters, or another state"
            )
        for name, value in theirs.items():
            if repr(mine[name]) != repr(value):
                raise ParameterError(
                    f"state '{place}' is of another model: {name}={value!r} there, "
                    f"{mine[name]!r} here; give its parameters, or another state"
                )
        if digest_of(steps) != digest_of(earlier):
            raise ParameterError(
                f"state '{place}' is of a pipeline whose steps before the last transform rows "
                "otherwise; give those, or another state"
            )
    if follow["kind"] != kind:
        raise ParameterError(
            f"state '{place}' follows {follow['kind']}, not {kind}; give another state"
        )
    followed = _followed(place, there, kind, check)
    learner = stored.taught()
    assert learner is not None
    followed.resume(follow, learner)
    return there, followed


def _params(model: Model) -> dict[str, Any]:
    """The parameters of a model; the family itself, however it was given."""
    params: dict[str, Any] = model.get_params(deep=False)
    if isinstance(model, LearningMixture) and "family" in params:
        params["family"] = model._family()
    return params


def _place(given: Any, storage_options: dict[str, Any] | None) -> Place:
    """Where a state or an output is; the options are for URLs alone."""
    place = Place.parse(given)
    if storage_options and place.directory is None and place.held is None:
        return Place.parse(given, storage_options)
    return place


def _followed(place: Place, whole: Any, kind: str, check: Callable[[], None]) -> Followed:
    """What follows for a model or a pipeline, and is saved with it."""
    steps, model = apart(whole)
    for _, step in steps:
        check_is_fitted(step)
    more = before(steps, whole.steps[-1][0]) if isinstance(whole, Pipeline) else {}

    def write(values: dict[str, Any]) -> None:
        check()
        model.save_with(place, {"follow_": values, **more}, overwrite=True)

    return Followed(model.begin, write, kind, model.taught())


def through(feed: Feed, whole: Any) -> Feed:
    """The feed, its rows transformed by the steps of a pipeline before the last one."""
    by = map_of(apart(whole)[0])
    return feed if by is None else TransformedFeed(feed, by)


def kind_of(feed: Feed, source: Any) -> str:
    """The kind of a feed, and by what its rows were transformed where they were opened."""
    if isinstance(source, TransformedSource):
        return f"rows transformed by {source.transform.digest[:16]}"
    return type(feed).__name__


def digest_of(steps: Steps) -> str | None:
    """What steps do to rows, as a digest; raises NotFittedError."""
    for _, step in steps:
        check_is_fitted(step)
    by = map_of(steps)
    return None if by is None else by.digest
