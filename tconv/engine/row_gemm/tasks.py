"""Tasks of a row GEMM: some rows of a plane of y, or a part of one row."""

from typing import NamedTuple

__all__ = ["RowTasks"]


class RowTasks(NamedTuple):
    """Tasks of a block of channels of one plane of y.

    The cells of a task follow each other, so that a tile runs on from one row to the next; a row
    that is cut has tasks of its own.

    >>> RowTasks.of((3, 20), plane=(8, 20))
    RowTasks(rows=3, columns=20, cells=60, whole=2, last=40, repeats=1)
    >>> RowTasks.of((1, 16), plane=(8, 20))
    RowTasks(rows=1, columns=16, cells=16, whole=1, last=4, repeats=8)
    """

    rows: int  # of a whole task
    columns: int
    cells: int  # of a whole task: rows * columns
    whole: int  # whole tasks, one after the other
    last: int  # cells of the short task after them; 0 if there is none
    repeats: int  # how often this stands in the plane: once for each row that is cut

    @classmethod
    def of(cls, task: tuple[int, int], plane: tuple[int, int]) -> "RowTasks":
        """Return tasks of at most so many rows and columns, for a plane of so many."""
        rows, columns = (min(most, size) for most, size in zip(task, plane, strict=True))
        all_rows, all_columns = plane
        if columns < all_columns:
            whole, last = divmod(all_columns, columns)
            return cls(1, columns, columns, whole, last, all_rows)
        whole, last = divmod(all_rows, rows)
        return cls(rows, columns, rows * columns, whole, last * columns, 1)
