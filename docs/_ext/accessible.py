"""What the theme lacks for those who read by ear or by keyboard, added to the pages once built.

Landmarks have names, captions of the navigation a level, pages a heading, and what may scroll can
be scrolled by keyboard. `.ci/accessible` looks for what is missing still.
"""

from pathlib import Path

CHANGES = (
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="All pages">'),
    ('<aside class="toc-drawer', '<aside aria-label="On this page" class="toc-drawer'),
    ("<pre>", '<pre tabindex="0">'),
    ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
    ('<div class="math">', '<div class="math" tabindex="0">'),
    ('<div id="search-results">', '<h1>Search</h1><div id="search-results" aria-live="polite">'),
)


def complete(app, exception):
    """Change every page; one that was changed before stays as it is."""
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = whole = page.read_text(encoding="utf-8")
        for lacking, added in CHANGES:
            text = text.replace(lacking, added)
        if text != whole:
            page.write_text(text, encoding="utf-8")


def setup(app):
    """Connect the hook."""
    app.connect("build-finished", complete)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
