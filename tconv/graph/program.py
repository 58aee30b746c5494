"""Programs: a graph for given sizes as native steps, run by one call."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv import engine
from tconv.engine import SequenceRunner
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.graph.binding import Binder
from tconv.graph.cost_model import STAGE_US
from tconv.graph.graph import Graph
from tconv.graph.lowering import BROKEN, lower
from tconv.graph.memory_plan import plan_memory, stages_of
from tconv.graph.passes.affine import fold_affine, fold_affine_forward
from tconv.graph.passes.concat import write_in_place
from tconv.graph.passes.constants import fold_constants
from tconv.graph.passes.epilogues import fuse_epilogues
from tconv.graph.passes.gates import find_gates
from tconv.graph.passes.identities import drop_identities
from tconv.graph.passes.loops import fuse_loops
from tconv.graph.steps import Step, copy_step, needed
from tconv.graph.values import Buffer, Operand, UnknownOperator, Value
from tconv.system.allocator import empty
from tconv.system.fork_lock import cached_property

__all__ = ["Program", "Programs", "simplified"]

_MOST_PROGRAMS = 16  # of a graph, one for each set of sizes

Shapes = tuple[tuple[int, ...], ...]
Sizes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Output:
    """An output of a program: a buffer that it writes, or a constant."""

    shape: tuple[int, ...]
    constant: NDArray[Any] | None = None


class Program:
    """A graph for inputs of given sizes. Several threads may run it at once.

    Its time is predicted before anything is compiled.

    Attributes
    ----------
    steps : list of steps, in order
    block_bytes, buffer_bytes : memory of the values between steps, and what it would be if no two
        of them shared any
    expected_us, steps_us : predicted microseconds of a run, and of each step
    shapes : dict of the shapes of values by name
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Shapes,
        kept: dict[Any, Any],
        binder: Binder,
        sizes: Sizes = (),
    ) -> None:
        named = {each.name: shape for each, shape in zip(graph.inputs, shapes, strict=True)}
        self._input_shapes = shapes
        lowered = lower(graph, named, kept, sizes)
        self.shapes = lowered.shapes
        steps, self._outputs = _with_outputs(lowered.steps, lowered.outputs, len(graph.inputs))
        steps = needed(steps)
        read = {value.buffer for step in steps for value in step.writes}
        read = {buffer for buffer in read if buffer.kind == "output"}
        steps = fuse_epilogues(fuse_loops(steps, read), read)
        self.steps = steps = write_in_place(steps, read)
        self._binder, self._stages = binder, stages_of(steps)
        self._planned = planned = plan_memory(steps, self._stages)
        self.block_bytes, self.buffer_bytes = planned.block_bytes, planned.buffer_bytes
        self.steps_us = [binder.expected_us(step) for step in steps]
        self.expected_us = (self._stages[-1] + 1 if steps else 0) * STAGE_US + sum(self.steps_us)

    @cached_property
    def _runner(self) -> SequenceRunner:
        """The native steps; their kernels are compiled, and weights packed, for the first run."""
        binder, stages = self._binder, self._stages
        with binder.lock:  # whose kernels and packed weights all programs of a graph share
            native = [
                binder.bind(step, self._planned.offsets, stage != after)
                for step, stage, after in zip(self.steps, stages, [*stages[1:], -1], strict=True)
            ]
            binder.kernels.load()
        here = engine.host_target()
        return SequenceRunner(native, self.block_bytes, binder.threads, here, binder.arenas)

    @property
    def output_shapes(self) -> Shapes:
        """The shapes of the outputs."""
        return tuple([each.shape for each in self._outputs])

    def __call__(
        self, inputs: list[NDArray[Any]], out: Sequence[NDArray[Any]] | None = None
    ) -> list[NDArray[Any]]:
        """Compute the outputs; into `out`, C-contiguous arrays of their shapes, if that is given.

        Raises
        ------
        ParameterError, DTypeError, ShapeError : the inputs are not of float32 and these sizes
        """
        arrays, results = self._operands(inputs, out)
        if self.steps:
            self._runner.run([*arrays, *results])
        return results

    def times(self, inputs: list[NDArray[Any]], runs: int) -> list[float]:
        """Run the steps one by one so many times; return the least seconds of each."""
        arrays, results = self._operands(inputs)
        found = [self._runner.times([*arrays, *results]) for _ in range(runs)]
        return [min(of_step) for of_step in zip(*found, strict=True)]

    def _operands(
        self, inputs: list[NDArray[Any]], out: Sequence[NDArray[Any]] | None = None
    ) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """The inputs as the steps read them, and arrays for the outputs."""
        if len(inputs) != len(self._input_shapes):
            raise ParameterError(
                f"inputs are {len(inputs)} arrays, must be {len(self._input_shapes)}; pass one for "
                "each input of the graph."
            )
        for number, (each, shape) in enumerate(zip(inputs, self._input_shapes, strict=True)):
            if each.dtype != np.float32:
                raise DTypeError(
                    f"inputs[{number}] has dtype {each.dtype}, must be float32; convert it."
                )
            if each.shape != shape:
                raise ShapeError(
                    f"inputs[{number}] has shape {each.shape}, the program is for {shape}; pass "
                    "such an array, or ask `Programs` for another program."
                )
        arrays = []
        for each in inputs:
            flags = each.flags  # np.require takes longer than a small step
            is_fit = flags.c_contiguous and flags.aligned
            arrays.append(each if is_fit else np.require(each, np.float32, ("C", "A")))
        if out is None:
            out = [empty(each.shape, np.float32) for each in self._outputs]
        for array, made in zip(out, self._outputs, strict=True):
            if made.constant is not None:
                array[...] = made.constant
        return arrays, list(out)


class Programs:
    """The programs of a graph; those of the newest 16 sets of sizes are kept.

    Parameters
    ----------
    graph : Graph
    threads : int
    many_sizes : bool, whether inputs of many sizes are expected: their programs are built in less
        time and share more kernels, and may take some per cent longer
    method : "direct" keeps the bits of a result that is computed piece by piece, see `plan`
    is_simplified : bool, whether the graph was made of one that `simplified` returned
    beside : Programs of a graph that is made of the same nodes for other sizes: packed weights and
        what is made of constants are shared

    Raises
    ------
    UnknownOperator : a node breaks the rules of its operator, so that no pass understands it

    >>> from tconv.graph import Graph, Input, Node
    >>> graph = Graph((Input("x", "float32"),), ("y",), (Node("Relu", ("x",), ("y",)),), {})
    >>> (y,) = Programs(graph, 1)([np.array([-1, 2], np.float32)])
    >>> y
    array([0., 2.], dtype=float32)
    """

    def __init__(
        self,
        graph: Graph,
        threads: int,
        many_sizes: bool = True,
        method: str = "auto",
        is_simplified: bool = False,
        beside: "Programs | None" = None,
    ) -> None:
        self.graph = graph if is_simplified else simplified(graph)
        self._binder: Binder = beside._binder if beside else Binder(threads, many_sizes, method)
        self._kept: dict[Any, Any] = beside._kept if beside else {}
        self._programs: dict[tuple[Shapes, Sizes], Program] = {}

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed weights of all programs."""
        return self._binder.packed_bytes

    def program(self, shapes: Shapes, sizes: Sizes = ()) -> Program:
        """Return the program for inputs of these shapes, and for these `graph.sizes`.

        Raises
        ------
        UnknownOperator : a node is none that programs have
        """
        found = self._programs.get((shapes, sizes))
        if found is None:
            found = Program(self.graph, shapes, self._kept, self._binder, sizes)
            with self._binder.lock:
                while len(self._programs) >= _MOST_PROGRAMS:
                    gone = self._programs.pop(next(iter(self._programs)))
                    kept = [found, *reversed(self._programs.values())]
                    self._binder.forget(gone.steps, [each.steps for each in kept])
                self._programs[shapes, sizes] = found
        return found

    def __call__(self, inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute the outputs of the graph."""
        return self.program(tuple([each.shape for each in inputs]))(inputs)


def simplified(graph: Graph) -> Graph:
    """Return the graph after the passes that need no sizes.

    Raises
    ------
    UnknownOperator : a node breaks the rules of its operator, so that no pass understands it
    """
    try:
        graph = find_gates(fold_constants(drop_identities(graph)))
        graph = fold_affine_forward(fold_affine(graph))
    except BROKEN as error:
        raise UnknownOperator(f"a graph that breaks a rule: {error!r}") from error
    read = {name for node in graph.nodes for name in node.inputs}.union(graph.outputs)
    constants = {name: array for name, array in graph.constants.items() if name in read}
    return replace(graph, constants=constants)


def _with_outputs(
    steps: list[Step], outputs: list[Operand], inputs: int
) -> tuple[list[Step], list[_Output]]:
    """Let the steps write the outputs; copy what is no buffer of its own."""
    found, written, made = list[_Output](), set[Buffer](), list(steps)
    for number, value in enumerate(outputs):
        if not isinstance(value, Value):
            found.append(_Output(value.shape, value))
            continue
        found.append(_Output(value.shape))
        buffer = value.buffer
        if buffer.kind == "block" and value.is_whole and buffer not in written:
            buffer.kind, buffer.place = "output", inputs + number
            written.add(buffer)
        else:
            made.append(copy_step(value, Value.whole(value.shape, "output", inputs + number)))
    return made, found
