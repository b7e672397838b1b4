"""Connect to a cluster, and check its workers: same versions, and access to the data."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from streamgmm.errors import ParameterError, SchedulerError, StreamGMMWarning, WorkerError
from streamgmm.passes.watch import lost_scheduler, workers_there
from streamgmm.sources import Block, capable

_MUST_AGREE = ("python", "streamgmm")
_COMPARED = (
    "numpy",
    "scipy",
    "numba",
    "scikit-learn",
    "zarr",
    "numcodecs",
    "dask",
    "distributed",
    "cloudpickle",
)
_LISTED = 4
_ANSWER_SECONDS = 30


def connect(
    address: str | None = None,
    *,
    timeout: float = 10.0,
    n_workers: int = 1,
    security: Any = None,
    scheduler_file: str | None = None,
) -> Any:
    """Connect to a Dask scheduler that runs already, and wait for workers.

    Parameters
    ----------
    address : str, optional
        ``tcp://host:8786``, or ``tls://host:8786`` with `security`.
    timeout : float, default=10.0
        Seconds for the scheduler to answer, and again for its workers to be there.
    n_workers : int, default=1
        How many workers to wait for.
    security : distributed.Security, optional
    scheduler_file : str, optional
        What ``dask scheduler --scheduler-file`` wrote, in the place of an address.

    Returns
    -------
    distributed.Client
        Active in this process until closed.

    Raises
    ------
    ParameterError
        If it is asked to wait for no workers.
    SchedulerError
        If nothing answers, or fewer workers are there than asked for; names the address and
        the timeout.

    Examples
    --------
    >>> from streamgmm.passes import connect
    >>> connect("tcp://127.0.0.1:9", timeout=0.2)
    Traceback (most recent call last):
        ...
    streamgmm.errors.SchedulerError: no scheduler answers at 'tcp://127.0.0.1:9' within 0.2 s...
    """
    if n_workers < 1:
        raise ParameterError(f"n_workers={n_workers} must be 1 or more")
    distributed: Any = importlib.import_module("distributed")
    where = address if address is not None else scheduler_file
    settings: dict[str, Any] = {} if scheduler_file is None else {"scheduler_file": scheduler_file}
    settings |= {"timeout": timeout, "security": security}
    try:
        # A client that cannot connect stays the active one, and every later computation fails.
        distributed.Client(address, set_as_default=False, **settings).close()
        client = distributed.Client(address, **settings)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise SchedulerError(
            f"no scheduler answers at '{where}' within {timeout:g} s ({_first_line(error)}); "
            "give the address that dask scheduler prints, such as tcp://host:8786 (tls:// with "
            "certificates), and see that this machine can reach it"
        ) from error
    try:
        client.wait_for_workers(n_workers, timeout=timeout)
    except TimeoutError as error:
        n = len(workers_there(client))
        client.close()
        raise SchedulerError(
            f"the scheduler at '{where}' has {n} of {n_workers} workers after {timeout:g} s; "
            "look at the logs of those that are missing, or wait longer"
        ) from error
    return client


def check_workers(client: Any, blocks: Sequence[Block] = ()) -> dict[str, dict[str, str]]:
    """Check that the workers of a cluster can do a fit together.

    Parameters
    ----------
    client : distributed.Client
    blocks : sequence of Block
        If given, every worker must be able to open the first of them.

    Returns
    -------
    dict
        By worker address: the versions of what matters, and the processor.

    Raises
    ------
    SchedulerError
        If there are no workers.
    WorkerError
        If a worker has another version of Python (3.x) or of this package than this process,
        or lacks it.
    SourceError
        If some worker cannot open the data; names the worker and its error.

    Warns
    -----
    StreamGMMWarning
        If versions of dependencies differ, or processors do, in which case the last bits of
        a result may depend on which worker read what.
    """
    block = next((block for block in blocks[:1] if not block.resident), None)
    try:
        answers = client.sync(
            client._run, _inspect, block, on_error="return", callback_timeout=_ANSWER_SECONDS
        )
    except TimeoutError:
        warnings.warn(
            f"some workers of '{client.scheduler.address}' did not answer within "
            f"{_ANSWER_SECONDS} s, and could not be checked",
            StreamGMMWarning,
            stacklevel=2,
        )
        return {}
    except OSError as gone:
        raise lost_scheduler(client) from gone
    found: dict[str, Any] = {w: a for w, a in answers.items() if isinstance(a, dict)}
    lost = {w: a for w, a in answers.items() if isinstance(a, ImportError)}
    if lost:
        worker, cause = min(lost.items())
        raise WorkerError(
            f"{len(lost)} of {len(answers)} workers cannot import what this process can; worker "
            f"{worker}: {_first_line(cause)}; install the same packages everywhere"
        )
    if not answers:
        raise SchedulerError(
            f"the cluster at '{client.scheduler.address}' has no workers; start some, or wait "
            "for them with client.wait_for_workers(1)"
        )
    _compare(found)
    blind = {w: each["blind"] for w, each in found.items() if each["blind"]}
    if blind:
        from streamgmm.errors import SourceError

        worker, said = min(blind.items())
        raise SourceError(
            f"{len(blind)} of {len(found)} workers cannot see the data though this process can; "
            f"worker {worker}: {said}"
        )
    return {w: {k: v for k, v in each.items() if k != "blind"} for w, each in found.items()}


def _compare(found: Mapping[str, Mapping[str, str]]) -> None:
    """Compare what workers have with what this process has; raises WorkerError, or warns."""
    here = _versions()
    for name in _MUST_AGREE:
        differ = {w: each[name] for w, each in found.items() if each[name] != here[name]}
        if differ:
            raise WorkerError(
                f"{_tell(name, differ)}, but this process has {here[name]}; install the same "
                "version everywhere"
            )
    for name in _COMPARED:
        differ = {w: each[name] for w, each in found.items() if each[name] != here[name]}
        if differ:
            warnings.warn(
                f"{_tell(name, differ)}, but this process has {here[name]}; a fit works while "
                "they agree on how values are sent, but its last bits may depend on which "
                "worker read what",
                StreamGMMWarning,
                stacklevel=3,
            )
    kinds = sorted({each["processor"] for each in found.values()})
    if len(kinds) > 1:
        warnings.warn(
            f"the workers have different processors ({', '.join(kinds)}): the last bits of a "
            "result may depend on which worker read what",
            StreamGMMWarning,
            stacklevel=3,
        )


def make_ready(client: Any, blocks: Sequence[Block]) -> None:
    """Check the workers; warn if there are none yet, since a pass waits for them.

    A cluster that scales by itself, or waits in a job queue, may rightly start with none.
    """
    if workers_there(client, 1):
        check_workers(client, blocks)
        return
    warnings.warn(
        f"the cluster at '{client.scheduler.address}' has no workers yet, so the fit waits for "
        "them; start some, or set distributed.scheduler.no-workers-timeout in Dask's "
        "configuration to give up after a while",
        StreamGMMWarning,
        stacklevel=3,
    )


def _inspect(block: Block | None) -> dict[str, str]:
    """Give, on a worker, its versions and processor, and whether it can open a block's data."""
    blind = ""
    if block is not None:
        try:
            capable(block).check_seen()
        except Exception as error:
            blind = _first_line(error)
    return _versions() | {"processor": _processor(), "blind": blind}


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("streamgmm", *_COMPARED):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def _processor() -> str:
    """Name the processor that compiled code is made for, as LLVM does."""
    import llvmlite.binding

    return str(llvmlite.binding.get_host_cpu_name())


def _tell(name: str, differ: Mapping[str, str]) -> str:
    listed = ", ".join(f"{v} on {w}" for w, v in sorted(differ.items())[:_LISTED])
    more = f" and {len(differ) - _LISTED} more workers" if len(differ) > _LISTED else ""
    return f"{name} is {listed}{more}"


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
