"""One pass over all rows for several summaries at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from streamgmm.errors import DataError
from streamgmm.model.components import Posterior
from streamgmm.model.mixture import Mixture
from streamgmm.passes import open_executor
from streamgmm.passes.base import Mergeable, OnBlock
from streamgmm.predict.rows import SLICE_BYTES, check_features, check_known
from streamgmm.sources import Block, Piece, Source, check_finite, parse_block_size


class Counter(Protocol):
    """Sums of one block of rows: `add` pieces, then take the `result`."""

    def add(self, piece: Piece, posterior: Posterior | None) -> None:
        """Add rows, with what the mixture says of them where the summary asked for it."""

    def result(self) -> Mergeable:
        """The summary of all rows added: a value that merges."""


class Request(Protocol):
    """What is to be seen of rows: small, frozen, picklable."""

    @property
    def posterior(self) -> bool:
        """Whether it needs the posterior of each row."""

    def open(self) -> Counter:
        """What counts the rows of one block."""


@dataclass(frozen=True, eq=False)
class Looked:
    """The results of several summaries, side by side."""

    each: tuple[Any, ...]

    def merge(self, other: Looked) -> Looked:
        """Results for the rows of both."""
        pairs = zip(self.each, other.each, strict=True)
        return Looked(tuple(a.merge(b) for a, b in pairs))


@dataclass(frozen=True, eq=False)
class _Context:
    """What every block needs: the mixture, the source's name, and what is to be seen."""

    mixture: Mixture
    name: str
    wanted: tuple[Any, ...]
    omit: bool


def look(
    source: Source,
    mixture: Mixture,
    wanted: Sequence[Request],
    *,
    omit: bool = False,
    block_size: int | str = "auto",
    n_threads: int | None = None,
    on_block: OnBlock | None = None,
) -> tuple[Any, ...]:
    """Make several summaries of all rows of a source, in one pass.

    Parameters
    ----------
    source : Source
    mixture : Mixture
        As wide as the rows.
    wanted : sequence of Request
    omit : bool, default=False
        Whether rows with a value that is not finite are left out; only a request that has
        ``raw`` set sees them. By default they are an error.
    block_size, n_threads, on_block
        As for `streamgmm.passes.open_executor`.

    Returns
    -------
    tuple
        What the counter of each request gives, merged.

    Raises
    ------
    DataError
        If the rows are of another width than the model, or cannot be of its family;
        NonFiniteError, which names the rows.
    """
    check_features(source, mixture)
    blocks = source.blocks(parse_block_size(block_size, source))
    context = _Context(mixture, source.name, tuple(wanted), omit)
    with open_executor(blocks, n_threads=n_threads) as executor:
        looked: Looked = executor.run(_look, context, on_block=on_block)
    return looked.each


def check_weight(weight: float, name: str) -> None:
    """Check that any row has weight; raises DataError."""
    if weight <= 0:
        raise DataError(f"{name}: no row has any weight; give some row weight")


def _look(context: _Context, block: Block) -> Looked:
    counters = [each.open() for each in context.wanted]
    kinds: list[list[Any]] = [[], [], []]
    for each, counter in zip(context.wanted, counters, strict=True):
        kinds[0 if getattr(each, "raw", False) else 2 if each.posterior else 1].append(counter)
    raw, without, with_posterior = kinds
    for piece in block.pieces():
        for counter in raw:
            counter.add(piece, None)
        finite = _finite(context, piece)
        if not len(finite.rows):
            continue
        for counter in without:
            counter.add(finite, None)
        if with_posterior:
            for part, posterior in _posteriors(context, finite):
                for counter in with_posterior:
                    counter.add(part, posterior)
    return Looked(tuple(counter.result() for counter in counters))


def _finite(context: _Context, piece: Piece) -> Piece:
    """The rows of a piece that are finite, or all of them, checked."""
    if not context.omit:
        check_finite(piece, context.name)
        return piece
    with np.errstate(all="ignore"):
        if np.isfinite(piece.rows.sum()):
            return piece
    finite = np.isfinite(piece.rows).all(axis=1)
    return piece if finite.all() else piece.where(finite)


def _posteriors(context: _Context, piece: Piece) -> Iterator[tuple[Piece, Posterior]]:
    """A piece in parts, of which the responsibilities of all components are held."""
    mixture = context.mixture
    most = max(256, SLICE_BYTES // (8 * mixture.n_components))
    for a in range(0, len(piece.rows), most):
        b = min(a + most, len(piece.rows))
        part = piece.part(a, b)
        posterior = mixture.posterior(part.rows, labels=True, resp=True)
        check_known(posterior.log_density, mixture, part, context.name)
        yield part, posterior
