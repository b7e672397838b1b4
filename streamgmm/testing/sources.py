"""The laws of a source of rows, as tests to inherit."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamgmm.errors import NonFiniteError
from streamgmm.sources import PIECE_BYTES, Block, Piece, Source, check_finite
from streamgmm.testing.cases import broken


class SourceTests:
    """Laws that every source of rows obeys; derive a class whose name begins with ``Test``.

    Give `source`, and `stored` where rows are not held as they are given.

    Attributes
    ----------
    sizes : sequence of (N, D)
        Rows and features, the smallest first.
    weighted : bool
        Whether `source` takes weights.
    most_piece_bytes : int
        What a piece may be at the most: twice ``PIECE_BYTES``, or a chunk.
    says : str
        How messages name a row, as a regular expression in which ``{row}`` is its number.
    """

    sizes: tuple[tuple[int, int], ...] = ((1, 1), (9, 2), (1001, 3))
    weighted = True
    most_piece_bytes = 2 * PIECE_BYTES
    says = r"row {row}\b"

    def source(
        self, rows: NDArray[Any], sample_weight: NDArray[Any] | None, tmp_path: Any
    ) -> Source:
        """A source of rows (N, D), with weights (N,) or none; `tmp_path` is an empty folder."""
        raise NotImplementedError("give a source of yours that has these rows")

    def test_what_it_says_of_itself(self, tmp_path: Any) -> None:
        """Sizes, dtype and bytes."""
        for case, rows, source in self._cases(tmp_path):
            if (source.n_samples, source.n_features) != rows.shape:
                broken(
                    "n_samples and n_features are those of the rows",
                    case,
                    says=(source.n_samples, source.n_features),
                )
            if source.dtype not in (np.float32, np.float64):
                broken("dtype is float32 or float64", case, dtype=source.dtype)
            if source.nbytes != rows.size * source.dtype.itemsize:
                broken(
                    "nbytes is n_samples * n_features * dtype.itemsize", case, nbytes=source.nbytes
                )
            if not source.name:
                broken("A source has a name for messages", case)

    def test_blocks_cover_every_row_once(self, tmp_path: Any) -> None:
        """In order, whatever size is asked for, and in any range."""
        for case, rows, source in self._cases(tmp_path):
            n = len(rows)
            for target in (1, 64, 1 << 12, 1 << 30):
                for start, stop in ((0, None), (0, n), (n // 3, n), (0, n - n // 3)):
                    blocks = source.blocks(target, start, stop)
                    asked = f"{case}, blocks({target}, {start}, {stop})"
                    self._cover(asked, rows, blocks, start, n if stop is None else stop)

    def test_the_plan_of_rows_that_are_there_does_not_change(self, tmp_path: Any) -> None:
        """Blocks depend on the range and the source alone."""
        for case, _, source in self._cases(tmp_path):
            one, two = (_edges(source.blocks(256)) for _ in range(2))
            if one != two:
                broken("Blocks are the same whenever they are asked for", case, one=one, two=two)

    def test_blocks_are_read_again_and_elsewhere(self, tmp_path: Any) -> None:
        """Twice, in another order, and from a pickle: the same bits."""
        for case, _, source in self._cases(tmp_path):
            blocks = source.blocks(256)
            first = [_rows(block).tobytes() for block in blocks]
            law = "A block gives the same rows each time it is read"
            if [_rows(block).tobytes() for block in reversed(blocks)][::-1] != first:
                broken(law, case)
            sent = [pickle.loads(pickle.dumps(block)) for block in blocks]
            if [_rows(block).tobytes() for block in sent] != first:
                broken(f"{law}, also after it was pickled", case)

    def test_pieces_are_bounded(self, tmp_path: Any) -> None:
        """C-contiguous, native, of the source's dtype, and no larger than they may be."""
        for case, _, source in self._cases(tmp_path):
            for block in source.blocks(1 << 30):
                for piece in block.pieces():
                    rows = piece.rows
                    if rows.nbytes > self.most_piece_bytes:
                        broken("A piece is of bounded bytes", case, nbytes=rows.nbytes)
                    good = rows.flags.c_contiguous and rows.dtype.isnative
                    if not good or rows.dtype != source.dtype:
                        broken(
                            "Rows of a piece are C-contiguous and native, of the source's dtype",
                            case,
                            dtype=rows.dtype,
                            flags=str(rows.flags),
                        )

    def test_weights_go_with_their_rows(self, tmp_path: Any) -> None:
        """float64, one a row; None where there are none."""
        for case, _, source in self._cases(tmp_path):
            if any(piece.sample_weight is not None for piece in _pieces(source.blocks(256))):
                broken("Rows without weights have None", case)
        if not self.weighted:
            return
        for case, rows, _ in self._cases(tmp_path / "plain"):
            weight = np.random.default_rng(0).random(len(rows))
            folder = tmp_path / f"weighted-{len(rows)}"
            folder.mkdir()
            pieces = list(_pieces(self.source(rows, weight, folder).blocks(256)))
            found = np.concatenate([piece.sample_weight for piece in pieces])
            if found.dtype != np.float64 or not np.array_equal(found, weight):
                broken("A row comes with its weight, in float64", case, found=found, given=weight)

    def test_a_row_that_is_not_finite_is_named(self, tmp_path: Any) -> None:
        """By its number in the source."""
        n, d = self.sizes[-1]
        rows = np.random.default_rng(0).normal(size=(n, d))
        rows[n // 2, d - 1] = np.nan
        source = self.source(rows, None, tmp_path)
        pieces = list(_pieces(source.blocks(256)))
        with pytest.raises(
            NonFiniteError, match=rf"{self.says.format(row=n // 2)}, column {d - 1}\b"
        ):
            _check(pieces, source.name)

    def _cases(self, tmp_path: Any) -> Iterator[tuple[str, NDArray[Any], Source]]:
        for n, d in self.sizes:
            folder = tmp_path / f"{n}-{d}"
            folder.mkdir(parents=True, exist_ok=True)
            rows = np.random.default_rng([n, d]).normal(size=(n, d))
            yield f"N = {n}, D = {d}", rows, self.source(rows, None, folder)

    def _cover(
        self, case: str, rows: NDArray[Any], blocks: Sequence[Block], start: int, stop: int
    ) -> None:
        edges = _edges(blocks)
        ends = [start, *(b for _, b in edges)]
        if [a for a, _ in edges] != ends[:-1] or ends[-1] != stop:
            broken("Blocks cover every row of their range once, in order", case, blocks=edges)
        for block in blocks:
            at = block.start
            for piece in block.pieces():
                if piece.start != at:
                    broken(
                        "Pieces follow one another from the block's first row",
                        case,
                        piece=piece.start,
                        after=at,
                    )
                at += len(piece.rows)
                if not np.array_equal(piece.rows, rows[piece.start : at].astype(piece.rows.dtype)):
                    broken("A piece has the rows that it says", case, start=piece.start)
            if at != block.start + block.n_rows:
                broken(
                    "The pieces of a block are all of its rows",
                    case,
                    rows=at - block.start,
                    n_rows=block.n_rows,
                )


def _edges(blocks: Sequence[Block]) -> list[tuple[int, int]]:
    return [(block.start, block.start + block.n_rows) for block in blocks]


def _pieces(blocks: Sequence[Block]) -> Iterator[Piece]:
    for block in blocks:
        yield from block.pieces()


def _check(pieces: Sequence[Piece], name: str) -> None:
    for piece in pieces:
        check_finite(piece, name)


def _rows(block: Block) -> NDArray[Any]:
    return np.concatenate([piece.rows for piece in block.pieces()])
