"""HOW A PICTURE BECOMES SVG: text that browsers and editors show, with nothing outside it."""

from html import escape

from tconv.visualise.drawing import Box, Figure, Label

__all__ = ["svg_of"]


def svg_of(figure: Figure) -> str:
    """Return a figure as the text of an SVG document.

    >>> print(svg_of(Figure(9, 9, "a cell", (Box(1, 1, 7, 7),))))
    <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9" width="9" height="9" role="img" \
font-family="system-ui,'DejaVu Sans',sans-serif"><title>Transposed convolution</title>\
<desc>a cell</desc><path d="M0 0h9v9H0z" fill="#fff"/><path d="M1 1h7v7h-7z" fill="#ffffff" \
stroke="#878f99"/></svg>
    """
    w, h = figure.width, figure.height
    shapes = "".join(map(_element, figure.shapes))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
        'role="img" font-family="system-ui,\'DejaVu Sans\',sans-serif">'
        f"<title>Transposed convolution</title><desc>{escape(figure.description)}</desc>"
        f'<path d="M0 0h{w}v{h}H0z" fill="#fff"/>{shapes}</svg>'
    )


def _element(shape: Box | Label) -> str:
    if isinstance(shape, Box):
        way = f"M{shape.x} {shape.y}h{shape.width}v{shape.height}h-{shape.width}z"
        thick = f' stroke-width="{shape.thickness}"' if shape.thickness != 1 else ""
        dash = f' stroke-dasharray="{shape.dash[0]} {shape.dash[1]}"' if shape.dash else ""
        fill = shape.fill or "none"
        return f'<path d="{way}" fill="{fill}" stroke="{shape.stroke}"{thick}{dash}/>'
    if not shape.text:
        return ""
    anchor = ' text-anchor="middle"' if shape.middle else ""
    bold = ' font-weight="700"' if shape.bold else ""
    # The middle of capitals and digits lies about a third of the size above the base line.
    y = shape.y + round(shape.size * 0.36)
    color = f' fill="{shape.color}"'
    place = f'x="{shape.x}" y="{y}" font-size="{shape.size}"'
    return f"<text {place}{anchor}{bold}{color}>{escape(shape.text, quote=False)}</text>"
