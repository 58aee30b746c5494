"""Choices of a module: whether tconv or PyTorch computes it, for each shape of its input."""

from typing import Any

import torch
from torch import Tensor

from tconv.geometry.geometry import Geometry, Letter
from tconv.torch.cost_model import is_worth

__all__ = ["Choices", "kind_of_call"]

_MOST_SHAPES = 64


class Choices:
    """What a module has chosen so far, which `Acceleration` prints.

    Attributes
    ----------
    left : the last kind of call that was left to PyTorch, by `kind_of_call`; None if there is none
    by_shape : of the newest shapes, whether tconv computes
    """

    def __init__(self) -> None:
        self.left: tuple[Any, ...] | None = None
        self.by_shape: dict[tuple[int, ...], bool] = {}

    def takes(
        self,
        geometry: Geometry,
        want: Letter,
        x: Tensor,
        weight: Tensor,
        is_frozen: bool,
        learns: bool,
    ) -> bool:
        """Whether tconv is to compute a call; if it learns, with the gradients."""
        name, threads = _NAMES[x.dtype], torch.get_num_threads()
        found = is_worth(geometry, want, name, threads, learns, is_frozen)
        self._note(x, found)
        self.left = None if found else kind_of_call(x)
        return found

    def note_call(self, x: Any) -> None:
        """Note a call that there was no choice for, as of a type that PyTorch alone computes."""
        if isinstance(x, Tensor) and x.shape not in self.by_shape:
            self._note(x, False)

    def _note(self, x: Tensor, is_taken: bool) -> None:
        if self.by_shape.get(x.shape) is not is_taken:
            if len(self.by_shape) >= _MOST_SHAPES:
                self.by_shape.clear()
            self.by_shape[x.shape] = is_taken


def kind_of_call(x: Tensor) -> tuple[Any, ...]:
    """Return what a module's choice depends on and may differ from call to call."""
    return x.shape, torch.is_grad_enabled(), torch.get_num_threads()


_NAMES = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.float64: "float64",
}
