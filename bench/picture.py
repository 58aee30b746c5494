"""Bar charts of a table's ratios, in a terminal and as SVG.

A bar is the best peer's time over tconv's; one that ends before the line at 1 is a loss.
"""

from collections.abc import Sequence
from html import escape
from statistics import median
from typing import Any

from bench.report import (
    CAPS,
    NAMES,
    best,
    mean,
    milliseconds,
    ours_in,
    ratio,
    ratios,
    seconds,
    threads_of,
)

__all__ = ["as_svg", "as_text"]

MOST = 4.0
"""Longer bars are cut, with an arrow."""

_BLOCKS = " ▏▎▍▌▋▊▉█"
_WIDTH = 32  # characters of a bar of MOST
_LABEL, _UNIT, _RIGHT, _LINE, _TOP, _BOTTOM = 130, 130, 90, 20, 64, 40  # units of the picture
_STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1a1a1a }
  .small { font-size: 12px }
  .win { fill: #0072b2 } .loss { fill: #d55e00 } .one { stroke: #1a1a1a; stroke-dasharray: 4 3 }
  .paper { fill: #ffffff }
  @media (prefers-color-scheme: dark) {
    text { fill: #e8e8e8 } .one { stroke: #e8e8e8 } .paper { fill: #16181c }
    .win { fill: #56b4e9 } .loss { fill: #e69f00 }
  }
"""
Row = dict[str, Any]


def as_text(part: Row) -> str:
    """A line for each case: both times, the ratio and its bar."""
    lines = [_title(part), ""]
    width = max([len(row["case"]) for row in part["rows"]], default=0)
    for row, value in _bars(part):
        found, ours = best(row, min), seconds(row, ours_in(part), min)
        assert found is not None
        eighths = round(min(value, MOST) / MOST * _WIDTH * 8)
        bar = "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
        mark = " ›" if value > MOST else ""
        times = f"{milliseconds(ours):>6} ms  {NAMES[found[1]]:19} {milliseconds(found[0]):>6} ms"
        lines.append(f"{row['case']:{width}}  {times}  {value:5.2f}x  {bar}{mark}")
    return "\n".join([*lines, "", _mean(part)])


def as_svg(part: Row) -> str:
    """The same as a picture that follows the reader's light or dark theme."""
    bars = list(_bars(part))
    width = _LABEL + round(MOST * _UNIT) + _RIGHT
    height = _TOP + len(bars) * _LINE + _BOTTOM
    one = _LABEL + _UNIT
    title = _title(part)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<text x="12" y="24" font-weight="600">{escape(title)}</text>',
        f'<text class="small" x="{one + 6}" y="{_TOP - 12}">equally fast</text>',
    ]
    for n, (row, value) in enumerate(bars):
        y, length = _TOP + n * _LINE, round(min(value, MOST) * _UNIT)
        kind, arrow = "win" if value >= 1 else "loss", " ›" if value > MOST else ""
        lines += [
            f'<text x="{_LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(row["case"])}</text>',
            f'<rect class="{kind}" x="{_LABEL}" y="{y + 2}" width="{length}" height="15" rx="2"/>',
            f'<text x="{_LABEL + length + 6}" y="{y + 14}">{value:.2f}×{arrow}</text>',
        ]
    end = _TOP + len(bars) * _LINE
    lines += [
        f'<line class="one" x1="{one}" y1="{_TOP - 6}" x2="{one}" y2="{end + 4}"/>',
        f'<text class="small" x="12" y="{end + 26}">{escape(_mean(part))}</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _bars(part: Row) -> Sequence[tuple[Row, float]]:
    """The rows that have a ratio, and it."""
    ours = ours_in(part)
    found = ((row, ratio(row, ours, "best", min)) for row in part["rows"])
    return [(row, value) for row, value in found if value is not None]


def _title(part: Row) -> str:
    names = {found[1] for row in part["rows"] if (found := best(row, min))}
    who = "PyTorch" if names == {"torch"} else "ONNX Runtime"
    if "torch" in names and len(names) > 1:
        who = "the best of PyTorch and ONNX Runtime"
    return f"Time of {who} over tconv's: {part['title']}, {part['dtype']}, {threads_of(part)}"


def _mean(part: Row) -> str:
    cap = CAPS[part["dtype"]]
    least, middle = (ratios(part, statistic=statistic) for statistic in (min, median))
    if not least:
        return "Nothing to compare with."
    slower = sum(value < 1 for value in least)
    return (
        f"Geometric mean of {len(least)}, each capped at {cap:g}: {mean(least, cap):.2f} by "
        f"minima, {mean(middle, cap):.2f} by medians; tconv is slower in {slower or 'none'}."
    )
