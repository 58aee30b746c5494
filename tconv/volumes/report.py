"""Report of a conversion: what was computed, what was there, how long it took."""

from dataclasses import asdict, dataclass
from typing import Any

from tconv.tables import Column, Table, Tabular
from tconv.volumes.byte_sizes import in_words

__all__ = ["Conversion"]


@dataclass(frozen=True)
class Conversion(Tabular):
    """One run of `convert` or of `run`.

    Attributes
    ----------
    source, target : names of the two
    source_shape, shape, dtype : of the source, and of the target with its type
    chunks, shards : of the target; shards None for none
    computed, found : tasks that this run computed, and that were finished before
    damaged : of those computed, that were there and could not be read
    workers, task_bytes, needed_bytes : tasks at once, the most bytes of one, and of the run
    elapsed_s, written_bytes : time of the run, and bytes of the chunks it computed, not compressed
    """

    source: str
    target: str
    source_shape: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    computed: int
    found: int
    damaged: int
    workers: int
    task_bytes: int
    needed_bytes: int
    elapsed_s: float
    written_bytes: int

    def table(self) -> Table:
        """Source and target, a row each."""
        columns = (Column(""), Column("array", folds=True), Column("shape"), Column("in chunks of"))
        tiles = "×".join(map(str, self.chunks))
        tiles += f", shards of {'×'.join(map(str, self.shards))}" if self.shards else ""
        rows = (
            ("from", self.source, "×".join(map(str, self.source_shape)), ""),
            ("to", self.target, f"{'×'.join(map(str, self.shape))} {self.dtype}", tiles),
        )
        return Table(columns, rows, self._footer())

    def _footer(self) -> str:
        tasks = "shards" if self.shards else "chunks"
        if not self.computed:
            return f"all {self.found:,} {tasks} are there already; nothing was computed"
        parts = [f"{self.computed:,} {tasks} computed"]
        if self.found:
            parts.append(f"{self.found:,} were there")
        if self.damaged:
            parts.append(f"{self.damaged:,} of them damaged and computed again")
        rate = self.written_bytes / max(self.elapsed_s, 1e-9)
        parts.append(f"{in_words(self.written_bytes)} in {self.elapsed_s:.3g} s")
        parts.append(f"{in_words(rate)}/s")
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        parts.append(f"{workers}, at most {in_words(self.needed_bytes)}")
        return " · ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)
