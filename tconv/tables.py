"""Tables: columns padded by spaces, or on a terminal a table of rich."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["Column", "Table", "Tabular"]

_NARROWEST = 8  # a column folded further is unreadable; lines then exceed the width
_GAP = "  "


class Column(NamedTuple):
    """Head of a column: right-aligned for numbers, folded for long names."""

    title: str
    right: bool = False
    folds: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under titles; ``print`` it for plain text, or give it to rich.

    ``footer`` is the text below. ``accent`` is the one column that may be coloured: green in the
    rows where ``good`` is True, red where it is False; the words there say the same. Control
    characters, which a name from a file may hold, are shown as escapes.

    >>> columns = (Column("library"), Column("size", right=True))
    >>> print(Table(columns, (("tconv", "9"), ("ONNX", ""))))
    library  size
    tconv       9
    ONNX
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    footer: str = ""
    accent: int | None = None
    good: tuple[bool | None, ...] = ()

    def __str__(self) -> str:
        return self.plain(None)

    def plain(self, width: int | None) -> str:
        """Return the table as text without a box, in lines of at most `width` if possible.

        Only columns that fold become narrower; nothing is cut off. None is the natural width.

        >>> columns = (Column("node", folds=True), Column("ms", right=True))
        >>> print(Table(columns, (("/up/conv", "7"),)).plain(12))
        node      ms
        /up/conv   7
        """
        widths, rows = self.folded(width, len(_GAP) * (len(self.columns) - 1))
        lines = []
        for row in rows:
            for parts in zip_longest(*row, fillvalue=""):
                cells = zip(parts, self.columns, widths, strict=True)
                padded = [p.rjust(w) if column.right else p.ljust(w) for p, column, w in cells]
                lines.append(_GAP.join(padded).rstrip())
        return "\n".join([*lines, *self.notes(width)])

    def __rich__(self) -> "RenderableType":
        return _OnTerminal(self)

    def folded(self, width: int | None, gaps: int) -> tuple[list[int], list[list[list[str]]]]:
        """Return the width of each column and, of titles and rows, the lines of each cell.

        `gaps` counts the blanks between and around the columns; they are part of `width`.

        >>> Table((Column("node", folds=True),), (("/decoder/up",),)).folded(9, 0)
        ([9], [[['node']], [['/decoder/', 'up']]])
        """
        titles = tuple(column.title for column in self.columns)
        rows = [[_printable(cell) for cell in row] for row in (titles, *self.rows)]
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        folding = [n for n, column in enumerate(self.columns) if column.folds]
        excess = 0 if width is None else sum(widths) + gaps - width
        while excess > 0 and folding:  # the widest column first
            widest = max(folding, key=lambda n: widths[n])
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
            excess -= 1
        return widths, [[_fold(c, w) for c, w in zip(row, widths, strict=True)] for row in rows]

    def notes(self, width: int | None) -> list[str]:
        """Return the lines of the footer.

        >>> Table((), (), "3 nodes in 7 ms").notes(10)
        ['3 nodes in', '7 ms']
        """
        lines = [_printable(line) for line in self.footer.splitlines()]
        if width is None:
            return lines
        return [part for line in lines for part in _fold(line, max(width, _NARROWEST))]


class Tabular:
    """A result that is printed as its table: plain text, or on a terminal by rich."""

    def table(self) -> Table:
        """Return the table."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.table())

    def __rich__(self) -> "RenderableType":
        return self.table().__rich__()


@dataclass(frozen=True)
class _OnTerminal:
    """A table for rich, which gives the width of the terminal only while printing."""

    table: Table

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> Iterator["RenderableType"]:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        columns = self.table.columns
        gaps = 2 * len(columns)  # one blank at either end, two between columns
        widths, (titles, *rows) = self.table.folded(options.max_width, gaps)
        # A fixed width keeps rich from truncating cells on a narrow terminal.
        shown = RichTable(
            box=SIMPLE_HEAD,
            show_edge=False,
            collapse_padding=True,
            header_style="bold",
            width=sum(widths) + gaps,
        )
        for column, title, width in zip(columns, titles, widths, strict=True):
            justify: Literal["right", "left"] = "right" if column.right else "left"
            shown.add_column(Text("\n".join(title)), justify=justify, no_wrap=True, width=width)
        for row, good in zip_longest(rows, self.table.good[: len(rows)]):
            colour = "" if good is None else "green" if good else "red"
            styles = (colour if at == self.table.accent else "" for at in range(len(columns)))
            shown.add_row(*(Text("\n".join(c), s) for c, s in zip(row, styles, strict=True)))
        yield shown
        yield from map(Text, self.table.notes(options.max_width))


def _printable(text: str) -> str:
    """Replace characters that control a terminal by their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _fold(text: str, width: int) -> list[str]:
    """Break text into lines: after a blank, else after a sign in a name, else anywhere."""
    lines = []
    while len(text) > width:
        blank, slash = text.rfind(" ", 0, width + 1), text.rfind("/", 0, width)
        sign = max(text.rfind(c, 0, width) for c in "._,")
        cut = next((at + 1 for at in (blank, slash, sign) if at > width // 3), width)
        lines.append(text[:cut].rstrip())
        text = text[cut:].lstrip()
    return [*lines, text]
