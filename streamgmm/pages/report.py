"""The report of a model: one page of HTML that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

from streamgmm.errors import OutputError, OutputExistsError
from streamgmm.pages.audit import audit_section
from streamgmm.pages.components import (
    components_section,
    overlap_section,
    pictures_section,
    separation_section,
)
from streamgmm.pages.course import convergence_section, drift_section, selection_section
from streamgmm.pages.doubt import MORE, doubt_section
from streamgmm.pages.markup import Markup, number, percent, plural, short, tag
from streamgmm.pages.style import SCRIPT, STYLE, digest
from streamgmm.pages.subject import Subject
from streamgmm.pages.tables import facts
from streamgmm.summaries.findings import UNLIKELY

Section = Callable[[Subject], list[Markup]]


def report(subject: Subject) -> str:
    """The whole page.

    Under a content security policy by which only the script of this package runs, and nothing is
    loaded from anywhere.
    """
    sections: list[tuple[str, str, Section]] = [
        ("summary", "Summary", summary_section),
        ("components", "Components", components_section),
        ("pictures", "Pictures", pictures_section),
        ("separation", "What separates them", separation_section),
        ("overlap", "Overlap", overlap_section),
        ("doubt", "Doubtful and unlikely rows", doubt_section),
    ]
    if subject.history is not None:
        sections.append(("convergence", "Convergence", convergence_section))
    if subject.selection is not None:
        sections.append(("selection", "Selection", selection_section))
    if subject.monitor is not None:
        sections.append(("drift", "Stream and drift", drift_section))
    sections += [
        ("data", "Data audit", audit_section),
        ("made", "How it was made", made_section),
    ]
    title = f"{subject.kind}: {subject.k} component{'s' if subject.k > 1 else ''}"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {digest(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    about = subject.portrait.name
    links = [tag("li", tag("a", name, href=f"#{ident}")) for ident, name, _ in sections]
    body = [
        tag("a", "Skip to the report", href="#main", class_="skip"),
        tag(
            "header",
            tag("h1", title),
            tag("p", f"Report of {short(about, 120)}" if about else "Report of the model alone",
                class_="sub"),
        ),
        tag("nav", tag("ul", links), aria_label="Sections"),
        tag(
            "main",
            [
                tag("section", tag("h2", name, id=f"{ident}-h"), make(subject), id=ident,
                    aria_labelledby=f"{ident}-h")
                for ident, name, make in sections
            ],
            id="main",
        ),
        tag("footer", tag("p", f"Made by streamgmm {subject.versions.get('streamgmm', '')}.")),
        tag("script", Markup(SCRIPT)),
    ]  # fmt: skip
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def summary_section(subject: Subject) -> list[Markup]:
    """The most important, in facts and in sentences."""
    found, audit = subject.portrait.findings, subject.portrait.audit
    pairs = [
        ("components", number(subject.k)),
        ("kind", subject.family),
        ("features", number(subject.d)),
    ]
    if found is not None:
        pairs.append(("rows", number(found.n_rows)))
        pairs.append(("log p, nats a row", number(found.log_likelihood / found.weight, 5)))
    elif subject.n_seen:
        pairs.append(("rows fitted", number(subject.n_seen)))
    said = [_weights(subject), _features(subject)]
    if subject.converged is not None:
        said.append(
            "The fit converged."
            if subject.converged
            else "The fit did not converge: its numbers are of where it was stopped."
        )
    said.append(_overlap(subject))
    if found is not None:
        doubtful, unlikely = found.doubtful / found.weight, found.unlikely / found.weight
        said.append(f"{percent(doubtful)} of the rows have a doubtful label.")
        said.append(
            f"{percent(unlikely)} are unlikely, where the model expects {percent(UNLIKELY)}"
            + (": it does not describe some of the rows." if unlikely > MORE * UNLIKELY else ".")
        )
    if audit is not None:
        noted = []
        if audit.with_gaps:
            noted.append(f"{plural(audit.with_gaps, 'row')} with gaps")
        if len(audit.constant):
            noted.append(plural(len(audit.constant), "constant column"))
        if audit.duplicates:
            extra = sum(len(group) - 1 for group in audit.duplicates)
            noted.append(plural(extra, "duplicated column"))
        said.append(
            f"The data have {', '.join(noted)}." if noted
            else "The data have no gaps, no constant columns and no duplicated ones."
        )  # fmt: skip
    if subject.monitor is not None:
        n = len(subject.monitor.get("alarms", ()))
        drifted = f"The stream has drifted: {plural(n, 'alarm')}."
        said.append(drifted if n else "No drift was noticed.")
    return [facts(pairs), tag("ul", [tag("li", each) for each in said if each])]


def _weights(subject: Subject) -> str:
    weights = subject.weights
    if subject.k == 1:
        return f"One {subject.family} component describes all rows."
    order = np.argsort(-weights, kind="stable")
    least = [k for k in order if weights[k] > 0][-1]
    return (
        f"Of {subject.k} {subject.family} components the heaviest, component {order[0]}, holds "
        f"{percent(float(weights[order[0]]))} of the weight, and the lightest, component {least}, "
        f"{percent(float(weights[least]))}."
    )


def _features(subject: Subject) -> str:
    if subject.k == 1:
        return ""
    apart = subject.portrait.separation
    order = [int(d) for d in np.argsort(-apart, kind="stable")[:3] if apart[d] > 0.05]
    if not order:
        return "No feature separates the components by its mean."
    listed = [f"{subject.name(d)} ({percent(float(apart[d]))} of its variance)" for d in order]
    return f"What separates them most: {', '.join(listed)}."


def _overlap(subject: Subject) -> str:
    if subject.k == 1:
        return ""
    overlap = (subject.portrait.findings or subject.portrait.own).overlap()
    a, b = np.unravel_index(int(overlap.argmax()), overlap.shape)
    if overlap[a, b] < 0.001:
        return "All components lie apart."
    return (
        f"Components {min(a, b)} and {max(a, b)} overlap most: the model expects "
        f"{percent(float(overlap[a, b]))} of their rows to have the other's label."
    )


def made_section(subject: Subject) -> list[Markup]:
    """The call, the commands, and the versions."""
    out = [tag("h3", "In Python"), _code(subject.called.split("\n"))]
    if subject.commands:
        out += [tag("h3", "On the command line"), _code(subject.commands)]
    out += [tag("h3", "With"), facts(subject.versions.items())]
    return out


def _code(lines: Sequence[str]) -> Markup:
    """Lines of code, each as it is; very long ones are cut in the middle."""
    said = [[short(line, 2000), Markup("\n")] for line in lines]
    return tag("pre", tag("code", said), tabindex=0)


def write_report(path: str | os.PathLike[str], page: str, overwrite: bool = False) -> None:
    """Write a page to a file, whole or not at all.

    Raises
    ------
    OutputExistsError
        If there is something at `path` that may not be replaced.
    OutputError
        If it cannot be written.
    """
    name = os.fsdecode(path)
    check_page(name, overwrite)
    part = f"{name}.part-{os.getpid()}"
    try:
        with open(part, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(page)
        os.replace(part, name)
    except OSError as error:
        if os.path.exists(part):
            os.remove(part)
        raise OutputError(f"the report '{name}' cannot be written: {error}") from error


def check_page(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Check that a page may be written at a path, before any row is read.

    Raises OutputExistsError, and OutputError where there is no folder to write it into.
    """
    name = os.fsdecode(path)
    if os.path.isdir(name):
        raise OutputExistsError(
            f"'{name}' is a folder; give the path of a file, such as report.html"
        )
    if os.path.lexists(name) and not overwrite:
        raise OutputExistsError(
            f"there is something at '{name}' already; pass overwrite=True to replace it, or "
            "another path"
        )
    folder = os.path.dirname(name) or "."
    if not os.path.isdir(folder):
        raise OutputError(
            f"the report '{name}' cannot be written: there is no folder '{folder}'; make it, or "
            "give another path"
        )
