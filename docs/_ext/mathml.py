"""Formulas as MathML, which every browser shows without a script; translated by docutils."""

from docutils.utils.math.latex2mathml import tex2mathml


def inline(translator, node):
    """Write a formula in a line."""
    translator.body.append(tex2mathml(node.astext()))
    raise_skip()


def block(translator, node):
    """Write a formula of its own line."""
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise_skip()


def raise_skip():
    """Say that the children of the node are done."""
    from docutils.nodes import SkipNode

    raise SkipNode


def setup(app):
    """Register the renderer, for ``html_math_renderer``."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
