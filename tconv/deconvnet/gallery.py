"""Gallery of projections: one HTML file that holds its pictures, style and script."""

import io
import json
from base64 import b64encode
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.results import (
    FeatureGroup,
    Projections,
    columns_of,
    field_text,
    rank_text,
    title_of,
)
from tconv.deconvnet.tile_pictures import (
    cam_of,
    colour_picture,
    enlarged,
    overlay_of,
    photo_of,
)
from tconv.page_templates import fill_template, page_source

__all__ = ["gallery_of"]

_PACKAGE = "tconv.deconvnet"


def gallery_of(seen: Projections) -> str:
    """Return the page of some projections.

    Raises
    ------
    ImportError : Pillow is not installed
    """
    size = "×".join(str(last - first + 1) for first, last in seen.tiles[0].field)
    summary = f"{seen.captions[0]}. Each unit sees {size} pixels of {_count(seen.images, 'image')}."
    if seen.target_class is None:
        heading = f"What features of {seen.layer} in {seen.model} see"
    else:
        heading = f"What speaks for class {seen.target_class} of {seen.model}"
    facts = json.dumps({"tiles": _facts(seen), "images": _images(seen)}).replace("<", "\\u003c")
    return fill_template(
        _PACKAGE,
        "gallery.html",
        {
            "{title}": escape(heading),
            "{heading}": escape(heading),
            "{summary}": escape(summary),
            "/*{style}*/": page_source(_PACKAGE, "gallery.css"),
            "<!--{blocks}-->": _blocks(seen),
            "<!--{table}-->": _table(seen),
            "<!--{captions}-->": "".join(f"<p>{escape(line)}.</p>" for line in seen.captions[1:]),
            "/*{script}*/": page_source(_PACKAGE, "gallery.js"),
            "{facts}": facts,
        },
    )


# ---- tiles ---------------------------------------------------------------------------------------


def _blocks(seen: Projections) -> str:
    """Write each feature: photos, projections, overlays, and below those of shuffled weights."""
    levels, others = seen.levels(), seen.levels(shuffled=True)
    parts = []
    for feature_group in seen.blocks:
        rows = [_row(seen, feature_group, levels, shuffled=False)]
        if others:
            rows.append(_row(seen, feature_group, others, shuffled=True))
        title = escape(title_of(seen, feature_group))
        parts.append(f'<div class="block"><h2>{title}</h2>{"".join(rows)}</div>')
    return "\n".join(parts)


def _row(
    seen: Projections,
    feature_group: FeatureGroup,
    levels: list[NDArray[np.uint8]],
    shuffled: bool,
) -> str:
    word, start = ("shuffled: ", len(seen.tiles)) if shuffled else ("", 0)
    tiles = seen.shuffled if shuffled else seen.tiles
    ranges = seen.ranges(shuffled)
    across = columns_of(len(feature_group.places))
    groups: dict[str, list[str]] = {}
    for n in feature_group.places:
        tile, photo = tiles[n], seen.photos[tiles[n].image]
        pictures = {
            "photo": photo_of(tile),
            "projection": enlarged(levels[n]),
            "overlay": overlay_of(tile, ranges[n]),
        }
        if seen.cams and not shuffled:
            pictures["Grad-CAM"] = cam_of(photo.pixels, seen.cams[tile.image])
        for what, pixels in pictures.items():
            name = f"{word}{what} of unit {','.join(map(str, tile.unit))}"
            groups.setdefault(what, []).append(_tile(pixels, name, start + n))
    written = [
        f'<div class="group" style="--across:{across}">{"".join(cells)}</div>'
        for cells in groups.values()
    ]
    texts = [field_text(tiles[n]) for n in feature_group.places]
    label = f"{word}RF {texts[0]}" if len(texts) == 1 else f"{word}{len(texts)} images"
    if shuffled and len(texts) == 1:
        label += f", {rank_text(seen.correlations[feature_group.places[0]])}"
    return f'<div class="row">{"".join(written)}</div><p class="label">{escape(label)}</p>'


def _tile(pixels: NDArray[np.uint8], name: str, at: int) -> str:
    high, wide = pixels.shape[:2]
    picture = f'<img src="{_uri(pixels)}" alt="{escape(name)}" width="{wide}" height="{high}">'
    return f'<button type="button" class="tile" data-at="{at}">{picture}</button>'


def _uri(pixels: NDArray[np.uint8]) -> str:
    """Encode a picture (H, W, 3) as a data URI of a PNG file."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("The page needs Pillow: pip install pillow.") from None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


# ---- facts ---------------------------------------------------------------------------------------


def _facts(seen: Projections) -> list[dict[str, Any]]:
    """Return the data of each tile for the script, those of shuffled weights last."""
    numbers = {image: n for n, image in enumerate(seen.photos)}
    found = []
    for n, tile in enumerate((*seen.tiles, *seen.shuffled)):
        word = "" if n < len(seen.tiles) else "with shuffled weights, "
        unit = ",".join(map(str, tile.unit))
        text = f"{word}unit {unit}, activation {tile.activation:.4g}, sees {field_text(tile)}"
        box = [list(each) for each in tile.field]
        box = box if len(box) == 2 else [[0, 0], *box]
        place = list(tile.place) if len(tile.place) != 1 else [0.5, *tile.place]
        where = {"image": numbers[tile.image], "box": box, "place": place}
        found.append({**where, "text": text})
    return found


def _images(seen: Projections) -> list[dict[str, Any]]:
    found = []
    for photo in seen.photos.values():
        pixels = colour_picture(photo.pixels)
        high, wide = pixels.shape[:2]
        found.append({"name": photo.name, "src": _uri(pixels), "width": wide, "height": high})
    return found


def _table(seen: Projections) -> str:
    """Write the table of `Projections.table`; each cell has the number to sort by."""
    table, columns = seen.table(), []
    texts = {"image", "sees", "unit"}
    for column in table.columns:
        kind = ' class="text"' if column.title in texts else ""
        columns.append(
            f'<th scope="col" aria-sort="none"{kind}><button type="button">'
            f"{escape(column.title)}</button></th>"
        )
    rows = []
    for n, row in enumerate(table.rows):
        tile = seen.tiles[n]
        exact = {
            "feature": tile.feature,
            "activation": tile.activation,
            "min": tile.projection.min(),
            "max": tile.projection.max(),
            "sanity": seen.correlations[n] if seen.correlations else 0,
        }
        cells = []
        for column, text in zip(table.columns, row, strict=True):
            value = exact.get(column.title, text)
            kind = ' class="text"' if column.title in texts else ""
            cells.append(f'<td{kind} data-value="{escape(str(value))}">{escape(text)}</td>')
        rows.append(f'<tr data-at="{n}">{"".join(cells)}</tr>')
    head = f"<caption hidden>Units</caption><thead><tr>{''.join(columns)}</tr></thead>"
    return f"{head}<tbody>{''.join(rows)}</tbody>"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
