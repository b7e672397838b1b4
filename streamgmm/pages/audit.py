"""What the rows of a report are: gaps, constant columns, duplicated ones, and ranges."""

from __future__ import annotations

import numpy as np

from streamgmm.pages.markup import Markup, percent, tag
from streamgmm.pages.subject import Subject
from streamgmm.pages.tables import num, table

MOST_COLUMNS = 200


def audit_section(subject: Subject) -> list[Markup]:
    """The rows as they were read: gaps, constant columns, duplicated ones, and ranges."""
    audit = subject.portrait.audit
    if audit is None:
        return [tag("p", "There were no rows to look at: give DATA to see them.")]
    n, gaps = audit.n_rows, audit.with_gaps
    said = [f"{n:,} rows of {subject.d} columns were read."]
    if subject.portrait.n_samples > n:
        said.append(f"{subject.portrait.n_samples - n:,} rows are masked or left out.")
    said.append(
        f"{gaps:,} rows ({percent(gaps / max(n, 1))}) have a gap or an infinite value, and are "
        "left out of all else here." if gaps else "No row has a gap or an infinite value."
    )  # fmt: skip
    constant, same = audit.constant, audit.duplicates
    if len(constant):
        said.append(f"Constant: {_listed(subject, constant.tolist())}.")
    said += [f"Equal in every row: {_listed(subject, group)}." for group in same[:8]]
    if not len(constant) and not same:
        said.append("No column is constant, and no two are equal.")
    noted = {int(d) for d in constant} | {d for g in same for d in g}
    noted |= {int(d) for d in np.flatnonzero(audit.nan + audit.infinite > 0)}
    order = sorted(noted) + [d for d in range(subject.d) if d not in noted]
    rows = [
        [subject.name(d), num(float(audit.low[d]), 5), num(float(audit.mean[d]), 5),
         num(float(audit.high[d]), 5), num(float(audit.deviation[d]), 4),
         num(float(audit.nan[d])), num(float(audit.infinite[d]))]
        for d in order[:MOST_COLUMNS]
    ]  # fmt: skip
    heads = ["column", "lowest", "mean", "highest", "standard deviation", "gaps", "infinite"]
    out = [tag("p", " ".join(said)), table("Columns", heads, rows, sortable=True)]
    if len(order) > MOST_COLUMNS:
        out.insert(1, tag("p", f"{MOST_COLUMNS} of {subject.d} columns, those of note first."))
    return out


def _listed(subject: Subject, columns: list[int], most: int = 12) -> str:
    more = f" and {len(columns) - most} more" if len(columns) > most else ""
    return ", ".join(subject.name(d) for d in columns[:most]) + more
