"""Work of a run: what every task has in common, and what one task does."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tconv.dask.volume import Volume
from tconv.volumes.target import Target

__all__ = ["Work"]


@dataclass(frozen=True, eq=False)
class Work:
    """Source, weight and target of a run; a worker gets it once."""

    volume: Volume
    target: Target
    weight: NDArray[Any]
    bias: NDArray[Any] | None = None

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
        made = self.volume.contraction
        box = made.without_channels(self.volume.grid.box(index))
        try:
            if is_there:
                if self.target.is_readable(box):
                    return False
                self.target.forget(made.without_channels(index))
            self.target.write(box, self.volume.compute(index, self.weight, self.bias))
        except Exception as error:
            error.add_note(
                f"at: chunk {made.without_channels(index)} of target {str(self.target)!r}"
            )
            raise
        return True
