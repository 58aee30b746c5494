"""Compiled calls: what Dynamo calls for a graph, and the list of all that are there."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._guards import CompileContext

from tconv.torch.compiling.compiled_graph import CompiledGraph

__all__ = ["CompiledCall", "compiled_calls"]

_calls: "WeakSet[CompiledCall]" = WeakSet()


class CompiledCall:
    """A graph of Dynamo as the backend compiled it, or as PyTorch runs it.

    Attributes
    ----------
    why : why PyTorch runs it, "" if it was compiled
    compiled : None if PyTorch runs it
    code : the code object that Dynamo traced, None if it does not say
    frame, number : Dynamo's number of that code, and how often it had been compiled before
    places : of the elements of the parameters that it was compiled with
    """

    def __init__(
        self,
        eager: Callable[..., Any],
        inputs: Sequence[Any],
        run: Callable[..., Any] | None = None,
        compiled: CompiledGraph | None = None,
        why: str = "",
    ) -> None:
        self._eager, self._run = eager, run or eager
        self.compiled, self.why = compiled, why
        self.places = {
            each.data_ptr()
            for each in inputs
            if isinstance(each, Tensor) and hasattr(each, "_dynamo_static_input_type")
        }
        self.code, self.frame, self.number = _origin()
        _calls.add(self)

    def __call__(self, *arguments: Any) -> Any:
        """Compute the graph."""
        compiled = self.compiled
        if compiled is None or compiled.why_left:
            return self._eager(*arguments)
        return self._run(*arguments)


def compiled_calls() -> Iterator[CompiledCall]:
    """All that Dynamo still holds, in the order in which they were compiled."""
    return iter(sorted(_calls, key=lambda each: (each.frame, each.number)))


def _origin() -> tuple[Any, int, int]:
    """The code that Dynamo compiles at the moment, its number, and how often it did before."""
    identity = CompileContext.current_compile_id()
    frame = getattr(identity, "frame_id", None)
    number = getattr(identity, "frame_compile_id", None)
    try:
        code = InstructionTranslator.current_tx().f_code
    except AttributeError:  # outside of Dynamo
        code = None
    return code, -1 if frame is None else frame, 0 if number is None else number
