"""Work of a run: what every task has in common, and what one task does."""

from dataclasses import dataclass, fields
from typing import Any

from numpy.typing import NDArray

from tconv.system.fork_lock import cached_property
from tconv.volumes.chunk_cache import ChunkCache
from tconv.volumes.computation import Tasks
from tconv.volumes.target import Target

__all__ = ["Work"]


@dataclass(frozen=True, eq=False)
class Work:
    """Source, weight and target of a run; a worker gets it once. A network has its own weights."""

    volume: Tasks
    target: Target
    weight: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    kept_chunks: int = 0  # decoded ones of the source, in each process

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}  # without the cache

    @cached_property
    def _cache(self) -> ChunkCache:
        return ChunkCache(self.volume.made.source, self.kept_chunks)

    def run(self, number: int, is_there: bool = False) -> bool:
        """Compute one chunk and write it; return False if it is there and can be read.

        Parameters
        ----------
        number : of the chunk, in C order
        is_there : whether its key is in the target, which is then read back

        Raises
        ------
        OSError, and what a computation raises : the chunk is named in a note
        """
        index = self.volume.grid.index_of(number)
        made = self.volume.made
        box = made.without_channels(self.volume.grid.box(index))
        try:
            if is_there:
                if self.target.is_readable(box):
                    return False
                self.target.forget(made.without_channels(index))
            read = self._cache.read if self.kept_chunks else made.source.read
            self.target.write(box, self.volume.compute(index, self.weight, self.bias, read))
        except Exception as error:
            error.add_note(
                f"at: chunk {made.without_channels(index)} of target {str(self.target)!r}"
            )
            raise
        return True
