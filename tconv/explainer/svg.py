"""SVG documents of pictures."""

import struct
import zlib
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from itertools import groupby
from operator import itemgetter
from statistics import mode

from tconv.explainer.drawing import INK, LINE, PAPER, Box, Figure, Label, Pixels

__all__ = ["svg_of"]


def svg_of(figure: Figure) -> str:
    """Write a figure as an SVG document: all pixels, above them all boxes and all labels.

    >>> print(svg_of(Figure(9, 9, "a cell", (Box(1, 1, 7, 7),))))
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" width="9" height="9" role="img" \
font-family="system-ui,'DejaVu Sans',sans-serif"><title>Transposed convolution</title>\
<desc>a cell</desc><g fill="#ffffff"><path d="M0 0h9v9H0z"/><g stroke="#878f99">\
<path d="M1 1h7v7h-7z"/></g></g><g fill="#16191d" font-size="15" text-anchor="middle"></g></svg>
    """
    w, h = figure.width, figure.height
    labels = [shape for shape in figure.shapes if isinstance(shape, Label) and shape.text]
    boxes = [shape for shape in figure.shapes if isinstance(shape, Box)]
    images = "".join(_image(shape) for shape in figure.shapes if isinstance(shape, Pixels))
    paths = _grouped((line, _paths(run)) for line, run in groupby(boxes, _outline))
    common = mode([label.size for label in labels] or [Label.size])
    styled = ((_style(label, common), _text(label)) for label in labels)
    texts = _grouped(sorted(styled, key=itemgetter(0)))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
        'role="img" font-family="system-ui,\'DejaVu Sans\',sans-serif">'
        f"<title>Transposed convolution</title><desc>{escape(figure.description)}</desc>"
        f'<g fill="{PAPER}"><path d="M0 0h{w}v{h}H0z"/>{images}<g stroke="{LINE}">{paths}</g></g>'
        f'<g fill="{INK}" font-size="{common}" text-anchor="middle">{texts}</g></svg>'
    )


def _grouped(styled: Iterable[tuple[str, str]]) -> str:
    """Join shapes; neighbours of one style share a group."""
    runs = (
        (style, "".join(shape for _, shape in run)) for style, run in groupby(styled, itemgetter(0))
    )
    return "".join(f"<g{style}>{shapes}</g>" if style else shapes for style, shapes in runs)


def _outline(box: Box) -> str:
    """Write the attributes that differ from a thin line's."""
    stroke = "" if box.stroke == LINE else f' stroke="{box.stroke}"'
    thick = "" if box.thickness == 1 else f' stroke-width="{box.thickness}"'
    dash = f' stroke-dasharray="{box.dash[0]} {box.dash[1]}"' if box.dash else ""
    return stroke + thick + dash


def _paths(boxes: Iterable[Box]) -> str:
    """Write boxes; neighbours of one fill share a path, which names a fill other than paper."""
    paths = ""
    for fill, run in groupby(boxes, lambda box: box.fill):
        ways = "".join(f"M{b.x} {b.y}h{b.width}v{b.height}h-{b.width}z" for b in run)
        paths += f'<path d="{ways}"' + ("/>" if fill == PAPER else f' fill="{fill or "none"}"/>')
    return paths


def _style(label: Label, common: int) -> str:
    """Write the attributes that differ from a centred label's, in ink and of the common size."""
    color = "" if label.color == INK else f' fill="{label.color}"'
    size = "" if label.size == common else f' font-size="{label.size}"'
    anchor = "" if label.middle else ' text-anchor="start"'
    bold = ' font-weight="700"' if label.bold else ""
    return f"{color}{size}{anchor}{bold}"


def _text(label: Label) -> str:
    """Write a label; x is its middle or its start."""
    # The middle of capitals and digits lies about a third of the size above the base line.
    place = f'x="{label.x}" y="{label.y + round(label.size * 0.36)}"'
    return f"<text {place}>{escape(label.text, quote=False)}</text>"


def _image(pixels: Pixels) -> str:
    """Write pixels as a picture in PNG, whose pixels a viewer enlarges without blurring them."""
    width, height = len(pixels.rows[0]) * pixels.side, len(pixels.rows) * pixels.side
    data = b64encode(_png(pixels.rows)).decode("ascii")
    return (
        f'<image x="{pixels.x}" y="{pixels.y}" width="{width}" height="{height}" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def _png(rows: tuple[bytes, ...]) -> bytes:
    """Encode 8-bit greys as PNG (ISO/IEC 15948): no filter, one chunk of data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts
