"""How objects show themselves: as text in a terminal, as a table in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streamgmm.model.mixture import Mixture
from streamgmm.pages.markup import Markup, clean, number, percent, short, tag
from streamgmm.summaries.moments import moments_of, separation

WIDE = 80  # letters of a line
MOST_ROWS = 20
MOST_FEATURES = 4
HEADS = {
    "n_components": "K",
    "n_clusters": "K",
    "covariance_type": "kind",
    "family": "kind",
    "bic": "BIC",
    "icl": "ICL",
    "stability": "stability",
    "silhouette": "silhouette",
    "elbow": "elbow",
    "holdout_log_likelihood": "held out",
    "holdout_error": "±",
    "inertia": "inertia",
    "passes": "reads",
    "converged": "ended",
    "failure": "failure",
}
"""Columns of a selection, in the order in which they are shown, and their headings."""

UNSHOWN = ("log_likelihood", "n_parameters", "aic", "n_iter")


class Text(str):
    """Text that a prompt shows as it is, and a notebook as a table."""

    html: str

    __slots__ = ("html",)

    def __new__(cls, text: str, html: str = "") -> Text:
        """Text, and the same as HTML."""
        made = super().__new__(cls, text)
        made.html = html
        return made

    def __repr__(self) -> str:
        """As it is."""
        return str(self)

    def _repr_html_(self) -> str:
        return self.html


def summary_of(
    mixture: Mixture, names: Sequence[str], lines: Sequence[str], most: int = MOST_ROWS
) -> Text:
    """A table of the components of a mixture, the heaviest first, under some lines of text.

    Where there are more components than `most`, or more features than fit, the table says so.
    """
    heads, rows, notes = _component_rows(mixture, names, most)
    text = "\n".join([*lines, "", *columns(heads, rows), *notes])
    return Text(text, str(tag("div", [tag("p", line) for line in lines], grid(heads, rows),
                              [tag("p", note) for note in notes])))  # fmt: skip


def _component_rows(
    mixture: Mixture, names: Sequence[str], most: int
) -> tuple[list[str], list[list[str]], list[str]]:
    k, d = mixture.n_components, mixture.n_features
    moments = moments_of(mixture)
    order = np.argsort(-mixture.weights, kind="stable")[:most].tolist()
    apart = separation(mixture, moments)
    shown = np.sort(np.argsort(-apart, kind="stable")[:MOST_FEATURES]).tolist()
    deviations = np.sqrt(moments.variances)
    rows = [
        [str(i), percent(float(mixture.weights[i])),
         *(f"{number(float(moments.means[i, j]))} ± {number(float(deviations[i, j]), 2)}"
           for j in shown)]
        for i in order
    ]  # fmt: skip
    heads = ["", "weight", *(short(str(names[j]), 14) for j in shown)]
    notes = []
    if len(order) < k:
        rest = float(mixture.weights.sum() - mixture.weights[order].sum())
        notes.append(f"and {k - len(order):,} more components, with {percent(max(rest, 0.0))} of "
                     "the weight")  # fmt: skip
    if len(shown) < d:
        notes.append(f"{len(shown)} of {d:,} features: those that separate the components most")
    what = "mean ± standard deviation"
    drawn = f" (of {moments.draws:,} draws of each)" if moments.draws else ""
    return heads, rows, [what + drawn, *notes]


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDE) -> list[str]:
    """Lines of a table, columns to the right, as many of them as fit in a line.

    >>> columns(["k", "bic"], [["1", "10.5"], ["12", "9.0"]])
    [' k   bic', ' 1  10.5', '12   9.0']
    """
    widths = [max(len(str(row[j])) for row in (heads, *rows)) for j in range(len(heads))]
    fit = len(heads)
    while fit > 2 and sum(widths[:fit]) + 2 * (fit - 1) > width:
        fit -= 1
    lines = [
        "  ".join(str(each).rjust(w) for each, w in zip(row[:fit], widths, strict=False)).rstrip()
        for row in (heads, *rows)
    ]
    if fit < len(heads):
        lines.append(f"and {len(heads) - fit} more columns: {', '.join(heads[fit:])}")
    return lines


def grid(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markup:
    """The same as a table of HTML, in the style of the notebook."""
    return tag(
        "table",
        tag("thead", tag("tr", [tag("th", head, scope="col") for head in heads])),
        tag("tbody", [
            tag("tr", tag("th", row[0], scope="row"), [tag("td", each) for each in row[1:]])
            for row in rows
        ]),
    )  # fmt: skip


def table_of(table: Mapping[str, Any], best: int | None, title: str) -> Text:
    """The candidates of a selection, the best marked."""
    known = [name for name in HEADS if name in table and _worth(table[name])]
    known += [name for name in table if name not in (*HEADS, *UNSHOWN) and _worth(table[name])]
    n = len(next(iter(table.values())))
    rows = [
        ["best" if i == best else "", *(_cell(table[name][i]) for name in known)] for i in range(n)
    ]
    heads = ["", *(HEADS.get(name) or name.replace("_", " ") for name in known)]
    html = tag("div", tag("p", title), grid(heads, rows))
    return Text("\n".join([title, *columns(heads, rows)]), str(html))


def position(table: Mapping[str, Any], k: int, kind: str = "") -> int | None:
    """The row of a candidate in the table of a selection."""
    name = "n_components" if "n_components" in table else "n_clusters"
    kinds = table.get("covariance_type", table.get("family"))
    for i, size in enumerate(table[name]):
        if size == k and (kinds is None or not kind or str(kinds[i]) == kind):
            return i
    return None


def _worth(column: Any) -> bool:
    """Whether a column says anything."""
    values = np.asarray(column)
    return values.ndim == 1 and (values.dtype.kind != "U" or bool((values != "").any()))


def _cell(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, float, np.number)):
        return number(float(value), 6)
    return short(clean(str(value)), 24)


class Watched(dict[str, Any]):
    """What a stream has been, ``monitor_``, which shows itself in words."""

    def _said(self) -> list[tuple[str, str]]:
        rows = np.asarray(self.get("rows", ()))
        alarms, changes = self.get("alarms", ()), self.get("changes", ())
        likelihood = np.asarray(self.get("log_likelihood", ()), np.float64)
        known = likelihood[np.isfinite(likelihood)]
        said = [("batches", number(len(rows))), ("rows", number(float(rows.sum())))]
        if len(known):
            said.append(("latest log p, nats a row", number(float(known[-1]), 5)))
        said.append(("alarms", number(len(alarms))))
        said += [(f"after row {a['row']:,}", str(a["kind"])) for a in alarms[-3:]]
        if changes:
            said.append(("changes of components", number(len(changes))))
        return said

    def __repr__(self) -> str:
        """In words; the values are those of a dict."""
        return "\n".join(f"{name:<26}{value}" for name, value in self._said())

    def _repr_html_(self) -> str:
        return str(grid(["", ""], self._said()))


def plan_of(lines: Sequence[str]) -> str:
    """Lines of a name and a value each, as a table of HTML."""
    return str(grid(["", ""], [(line[:11].strip(), line[11:].strip()) for line in lines]))
