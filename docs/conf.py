"""The documentation site: ``sphinx-build -W -n docs docs/_build`` after ``pip install '.[docs]'``.

Pages are Markdown (MyST). A page in this folder that no table of contents names is a guide by
task, and is listed with them, so a new guide is one file.
"""

import inspect
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]  # the package beside this folder

import streamgmm  # noqa: E402

project = "streamgmm"
author = "streamgmm developers"
copyright = "streamgmm developers"
version = release = streamgmm.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "accessible",
    "commands",
    "mathml",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "_ext"]
nitpicky = True
smartquotes = False  # quotes in types and examples are to be typed

html_theme = "furo"
html_title = f"streamgmm {release}"
html_math_renderer = "mathml"  # by the browser itself: no script, and nothing from the network
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say shapes, dtypes and units
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False


def skip_member(app, what, name, obj, skip, options):
    """Leave out of the reference what a class has from another package."""
    function = getattr(obj, "fget", None) or getattr(obj, "__func__", obj)
    home = getattr(function, "__module__", None) or ""
    return True if callable(function) and not home.startswith("streamgmm") else None


def keep_underscores(app, what, name, obj, options, lines):
    """Let names such as ``means_`` be names, where reStructuredText would see a reference."""
    example = False
    for number, line in enumerate(lines):
        example = line.strip() != "" and (example or line.lstrip().startswith(">>>"))
        if not example:
            parts = re.split("(`+[^`]+`+)", line)  # every second one is quoted
            parts[::2] = [re.sub(r"(?<=[^\W_])_(?!\w)", r"\\_", part) for part in parts[::2]]
            lines[number] = "".join(parts)


def list_guides(app, docname, source):
    """Put into the list of guides every page of this folder that no other list has."""
    if docname == "guides/index":
        named = {(HERE / "index").resolve()}
        for page in HERE.rglob("*.md"):
            for body in re.findall(r"```\{toctree\}(.*?)```", page.read_text(), re.DOTALL):
                entries = [line for line in body.split() if line[0] not in ":<"]
                named |= {(page.parent / entry).resolve() for entry in entries}
        pages = [page.with_suffix("").resolve() for page in HERE.glob("*.md")]
        others = sorted(page.name for page in pages if page not in named)
        lines = "".join(f"../{name}\n" for name in others)
        source[0] = source[0].replace("(other guides)\n", lines)


def describe_others(app, docname, source):
    """Describe every public name that no list of the reference has, below the lists."""
    if docname == "reference/api":
        listed = set(re.findall(r"^   (?:report\.)?(\w+)$", source[0], re.MULTILINE))
        entries = ""
        for name in sorted(set(streamgmm.__all__) - listed):
            value = getattr(streamgmm, name)
            if inspect.isclass(value):
                entries += f".. autoclass:: streamgmm.{name}\n   :members:\n\n"
            elif inspect.isfunction(value):
                entries += f".. autofunction:: streamgmm.{name}\n\n"
        section = f"## More\n\n```{{eval-rst}}\n{entries}```\n" if entries else ""
        source[0] = source[0].replace("(other names)\n", section)


def setup(app):
    """Connect the hooks."""
    app.connect("autodoc-skip-member", skip_member)
    app.connect("autodoc-process-docstring", keep_underscores, priority=900)  # after numpydoc
    app.connect("source-read", list_guides)
    app.connect("source-read", describe_others)
