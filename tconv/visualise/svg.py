"""HOW A PICTURE BECOMES SVG: text that browsers and editors show, with nothing outside it."""

from collections.abc import Iterable
from html import escape
from itertools import groupby, starmap
from statistics import mode

from tconv.visualise.drawing import INK, LINE, PAPER, Box, Figure, Label

__all__ = ["svg_of"]


def svg_of(figure: Figure) -> str:
    """Return a figure as the text of an SVG document: all boxes, and above them all labels.

    >>> print(svg_of(Figure(9, 9, "a cell", (Box(1, 1, 7, 7),))))
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" width="9" height="9" role="img" \
font-family="system-ui,'DejaVu Sans',sans-serif"><title>Transposed convolution</title>\
<desc>a cell</desc><g fill="#ffffff"><path d="M0 0h9v9H0z"/><g stroke="#878f99">\
<path d="M1 1h7v7h-7z"/></g></g><g fill="#16191d" font-size="15" text-anchor="middle"></g></svg>
    """
    w, h = figure.width, figure.height
    labels = [shape for shape in figure.shapes if isinstance(shape, Label) and shape.text]
    boxes = (shape for shape in figure.shapes if isinstance(shape, Box))
    drawn = "".join(starmap(_boxes, groupby(boxes, _outline)))
    usual = mode([label.size for label in labels] or [Label.size])
    texts = "".join(_text(label, usual) for label in labels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
        'role="img" font-family="system-ui,\'DejaVu Sans\',sans-serif">'
        f"<title>Transposed convolution</title><desc>{escape(figure.description)}</desc>"
        f'<g fill="{PAPER}"><path d="M0 0h{w}v{h}H0z"/><g stroke="{LINE}">{drawn}</g></g>'
        f'<g fill="{INK}" font-size="{usual}" text-anchor="middle">{texts}</g></svg>'
    )


def _outline(box: Box) -> str:
    """Write what differs from a thin line."""
    stroke = "" if box.stroke == LINE else f' stroke="{box.stroke}"'
    thick = "" if box.thickness == 1 else f' stroke-width="{box.thickness}"'
    dash = f' stroke-dasharray="{box.dash[0]} {box.dash[1]}"' if box.dash else ""
    return stroke + thick + dash


def _boxes(outline: str, boxes: Iterable[Box]) -> str:
    """Write boxes of one outline."""
    ways = "".join(map(_box, boxes))
    return f"<g{outline}>{ways}</g>" if outline else ways


def _box(box: Box) -> str:
    """Write what differs from a box of paper."""
    fill = "" if box.fill == PAPER else f' fill="{box.fill or "none"}"'
    way = f"M{box.x} {box.y}h{box.width}v{box.height}h-{box.width}z"
    return f'<path d="{way}"{fill}/>'


def _text(label: Label, usual: int) -> str:
    """Write what differs from a label of the usual size, in ink, told by its middle."""
    color = "" if label.color == INK else f' fill="{label.color}"'
    size = "" if label.size == usual else f' font-size="{label.size}"'
    anchor = "" if label.middle else ' text-anchor="start"'
    bold = ' font-weight="700"' if label.bold else ""
    # The middle of capitals and digits lies about a third of the size above the base line.
    place = f'x="{label.x}" y="{label.y + round(label.size * 0.36)}"'
    return f"<text {place}{color}{size}{anchor}{bold}>{escape(label.text, quote=False)}</text>"
