"""Progress of passes: a bar with the rows and the log-likelihood, and lines in the log.

    with streamgmm.ProgressBar():
        model.fit("data.zarr")

Code that runs passes sends events to `listener`. The logger ``streamgmm`` has a record at level
INFO for every iteration; its attribute ``event`` has the same as numbers.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    import rich.console
    import rich.progress


class Event(Protocol):
    """Progress of a pass under way: `rows` of `n_rows` are done.

    `iteration` counts from 1. `candidate` is the index of the start. `lower_bound` (nats a row)
    and `change` are those of its last finished iteration, and NaN before the first. An event may
    have more attributes, by the names in `FACTS`.
    """

    @property
    def stage(self) -> str: ...  # noqa: D102

    @property
    def iteration(self) -> int: ...  # noqa: D102

    @property
    def candidate(self) -> int: ...  # noqa: D102

    @property
    def rows(self) -> int: ...  # noqa: D102

    @property
    def n_rows(self) -> int: ...  # noqa: D102

    @property
    def lower_bound(self) -> float: ...  # noqa: D102

    @property
    def change(self) -> float: ...  # noqa: D102


Listener = Callable[[Any], None]

FACTS = (
    "stage",
    "iteration",
    "candidate",
    "rows",
    "n_rows",
    "lower_bound",
    "change",
    "gap",
    "rows_per_second",
    "seconds",
    "seconds_left",
    "finished",
)
"""Attributes of events. ``gap`` is the rise of a row's log-likelihood still to come, in nats."""

_log = logging.getLogger("streamgmm")

_listener: ContextVar[Listener | None] = ContextVar("streamgmm_progress", default=None)

_STAGES = {
    "sample": "looking at the data",
    "starts": "comparing starts",
    "em": "EM iteration {iteration}",
    "score": "final likelihood",
    "predict": "writing",
}


def listener() -> Listener | None:
    """Give the callback for progress in this context: the innermost bar, or None.

    >>> listener() is None
    True
    """
    return _listener.get()


def tell_compiling() -> None:
    """Say that kernels are being compiled: in the log, and to whoever shows progress."""
    _log.info("compiling for this processor: some seconds, once on this machine")
    shown = listener()
    if isinstance(shown, ProgressBar):
        shown.say("compiling for this processor (some seconds, once on this machine)")


def describe(event: Any) -> str:
    """Describe a finished iteration in one line.

    >>> from types import SimpleNamespace
    >>> describe(SimpleNamespace(iteration=3, lower_bound=-2.5, change=0.25, seconds=1.5))
    'iteration 3: log-likelihood -2.500000 a row, change +2.5e-01, 1.5 s'
    """
    if getattr(event, "stage", "em") == "starts":
        best = f", best {event.lower_bound:.4f} nats a row" if _known(event.lower_bound) else ""
        return f"starts: {event.rows} of {event.n_rows}{best}"
    start = getattr(event, "candidate", 0)
    said = [f"log-likelihood {event.lower_bound:.6f} a row"]
    for form, name in (
        ("change {:+.1e}", "change"),
        ("gap {:.1e}", "gap"),
        ("{:,.0f} rows/s", "rows_per_second"),
        ("{:.1f} s", "seconds"),
        ("about {:.0f} s left", "seconds_left"),
    ):
        value = getattr(event, name, math.nan)
        if math.isfinite(value):
            said.append(form.format(value))
    return f"iteration {event.iteration}{f' of start {start}' if start else ''}: {', '.join(said)}"


def _known(value: float) -> bool:
    return math.isfinite(value)


def log_event(event: Any, message: str = "") -> None:
    """Log an event: one line, and the numbers in the record's ``event``."""
    if _log.isEnabledFor(logging.INFO):
        facts = {name: getattr(event, name) for name in FACTS if hasattr(event, name)}
        _log.info("%s", message or describe(event), extra={"event": facts})


class JsonLines(logging.Handler):
    """Write each record of the log as a line of JSON; NaN and infinity are null.

    Parameters
    ----------
    file : text file

    Examples
    --------
    >>> import logging, sys
    >>> handler = JsonLines(sys.stdout)
    >>> handler.emit(logging.makeLogRecord({"msg": "hello", "created": 5.0, "levelname": "INFO"}))
    {"time": 5.0, "level": "info", "message": "hello"}
    """

    def __init__(self, file: Any) -> None:
        super().__init__()
        self.file = file

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        facts = getattr(record, "event", {})
        line = {"time": record.created, "level": record.levelname.lower()}
        line |= {"message": record.getMessage()} | facts
        for name, value in line.items():
            if isinstance(value, float) and not math.isfinite(value):
                line[name] = None
        print(json.dumps(line), file=self.file, flush=True)


class ProgressBar:
    """Show the progress of all fits and predictions inside a ``with`` statement.

    In a terminal it is one bar, with the rows of the current pass, rows a second, the
    log-likelihood a row and its last change. Elsewhere it is a line for each iteration.

    Parameters
    ----------
    file : text file, optional
        Where to write; standard error by default.

    Examples
    --------
    >>> import sys
    >>> with ProgressBar(file=sys.stdout) as bar:
    ...     bar.tell("predict", 5, 10)
    ...     bar.tell("predict", 10, 10)
    writing: 10 rows
    """

    def __init__(self, file: Any = None) -> None:
        self.file = file
        self._token: Token[Listener | None] | None = None
        self._bar: rich.progress.Progress | None = None
        self._task: Any = None
        self._pass: tuple[str, int] | None = None
        self._done = 0
        self._bound, self._change = math.nan, math.nan
        self._started = 0.0

    def __enter__(self) -> Self:
        """Start the display."""
        out = sys.stderr if self.file is None else self.file
        self._out = out
        self._started = time.perf_counter()
        if out.isatty():
            self._bar = _bar(out)
            self._task = self._bar.add_task("starting", total=None, note="")
            self._bar.start()
        self._token = _listener.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the display."""
        if self._token is not None:
            _listener.reset(self._token)
        if self._bar is not None:
            self._bar.stop()

    def tell(self, stage: str, rows: int, n_rows: int) -> None:
        """Show that `rows` of `n_rows` of a pass without iterations are done."""
        self._show(stage, 0, rows, n_rows)

    def say(self, what: str) -> None:
        """Show a line about what takes time."""
        if self._bar is not None:
            self._bar.update(self._task, description=what)
        else:
            print(what, file=self._out, flush=True)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.stage == "starts":
            if self._bar is not None:
                self._bar.update(
                    self._task, total=event.n_rows, completed=event.rows, unit="starts",
                    description=_STAGES["starts"], note=describe(event).partition(", ")[2],
                )  # fmt: skip
            elif event.rows == event.n_rows:
                self._line(event)
            self._pass = None
            return
        if math.isfinite(event.lower_bound):
            self._bound, self._change = event.lower_bound, event.change
            if self._bar is None:
                self._line(event)
        self._show(event.stage, event.iteration, event.rows, event.n_rows)

    def _show(self, stage: str, iteration: int, rows: int, n_rows: int) -> None:
        here = (stage, iteration)
        fresh = here != self._pass or rows < self._done
        finishes = rows >= n_rows and (fresh or self._done < n_rows)
        self._pass, self._done = here, rows
        title = _STAGES.get(stage, stage).format(iteration=iteration)
        if self._bar is not None:
            if fresh:
                self._bar.reset(self._task, total=n_rows, unit="rows")
            self._bar.update(self._task, completed=rows, description=title, note=self._note())
        elif finishes and stage != "em":
            print(f"{title}: {n_rows:,} rows", file=self._out, flush=True)

    def _line(self, event: Event) -> None:
        print(describe(event), file=self._out, flush=True)

    def _note(self) -> str:
        if not math.isfinite(self._bound):
            return ""
        change = f", change {self._change:+.1e}" if math.isfinite(self._change) else ""
        return f"log-likelihood {self._bound:.6f} a row{change}"


def _bar(out: Any) -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Rows(ProgressColumn):
        """Rows (or starts) done of all, and how many a second."""

        def render(self, task: rich.progress.Task) -> Text:
            speed = f" {task.speed:,.0f}/s" if task.speed else ""
            total = f"/{task.total:,.0f}" if task.total else ""
            unit = task.fields.get("unit", "rows")
            return Text(f"{task.completed:,.0f}{total} {unit}{speed}", style="cyan")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        Rows(),
        TextColumn("{task.fields[note]}"),
        console=Console(file=out),
        refresh_per_second=8,
    )
