"""Kernels of loops and reductions by name: those of one program are compiled together."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tconv.engine.compile.jit import load_all
from tconv.engine.program.loops import Expression
from tconv.engine.target.target import Target
from tconv.system.fork_lock import importing

__all__ = ["ProgramKernels"]


class ProgramKernels:
    """The kernels that a program calls, for float32.

    `loop` and `reduction` return functions that give a kernel's address after `load`.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._emits: dict[str, Callable[[Any], None]] = {}
        self._found: dict[str, int] = {}

    def loop(self, expression: Expression, reads: Sequence[str], outer: int) -> Callable[[], int]:
        """Ask for the loop of an expression whose operands are read in these ways."""
        ways = "_".join(each.replace(" ", "") for each in reads)
        name = f"loop_{expression.digest}_{outer}_{ways}"
        return self._named(name, partial(_emit_loop, expression, tuple(reads), outer))

    def reduction(self, how: str, along_rows: bool) -> Callable[[], int]:
        """Ask for a reduction."""
        name = f"reduce_{how}_{'row' if along_rows else 'rows'}"
        return self._named(name, partial(_emit_reduction, how, along_rows))

    def load(self) -> None:
        """Compile what is new, as one module."""
        new = {name: emit for name, emit in self._emits.items() if name not in self._found}
        if new:
            self._found |= load_all(new, self._target)

    def _named(self, name: str, emit: Callable[..., None]) -> Callable[[], int]:
        full = f"{name}_float32"
        self._emits[full] = partial(emit, full, self._target)
        return partial(self._found.__getitem__, full)


def _emit_loop(
    expression: Expression,
    reads: Sequence[str],
    outer: int,
    name: str,
    target: Target,
    module: Any,
) -> None:
    with importing:  # a process whose kernels are on disk emits none
        from tconv.engine.codegen.code import write
        from tconv.engine.program.loop_code import run_loop

    write(run_loop(expression, reads, outer), name, "float32", target, module)


def _emit_reduction(how: str, along_rows: bool, name: str, target: Target, module: Any) -> None:
    with importing:
        from tconv.engine.codegen.code import write
        from tconv.engine.program.loop_code import run_reduction

    write(run_reduction(how, along_rows), name, "float32", target, module)
