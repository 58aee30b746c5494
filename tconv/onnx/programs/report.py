"""Reports of a model's program: its steps, its memory, and the time of each step."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tconv.graph import Program, described
from tconv.tables import Column, Table, Tabular

__all__ = ["ProgramReport", "StepProfile", "StepTimes"]

_MIB = 2**20


@dataclass(frozen=True)
class ProgramReport:
    """A program of tconv: how many native steps it has, of how many nodes, and its memory.

    `memory_bytes` is the block that all values between steps lie in; if no two of them shared
    memory they would take `unshared_bytes`. `packed_bytes` are the packed weights of the programs
    of all sizes. `has_head` is true if ONNX Runtime computes what comes before the program.
    """

    steps: int
    nodes: int
    memory_bytes: int
    unshared_bytes: int
    packed_bytes: int
    has_head: bool

    @classmethod
    def of(cls, program: Program, packed_bytes: int, has_head: bool) -> "ProgramReport":
        """Describe a program."""
        nodes = sum(len(step.nodes) for step in program.steps)
        memory = program.block_bytes, program.buffer_bytes
        return cls(len(program.steps), nodes, *memory, packed_bytes, has_head)

    def __str__(self) -> str:
        where = "after a subgraph of ONNX Runtime" if self.has_head else "the whole model"
        return (
            f"{where}: {self.steps} steps of {self.nodes} nodes, values in "
            f"{self.memory_bytes / _MIB:.1f} MiB (unshared {self.unshared_bytes / _MIB:.1f}), "
            f"packed weights {self.packed_bytes / _MIB:.1f} MiB"
        )


@dataclass(frozen=True)
class StepProfile:
    """One step of a program: what it computes, the nodes in it, the shape of its result, its ms."""

    step: str
    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    ms: float


@dataclass(frozen=True)
class StepTimes(Tabular):
    """The steps of a program, each timed alone; the least of `runs` times, its start included.

    In a run steps follow each other without a return to Python, so the run takes less than the sum.
    """

    steps: tuple[StepProfile, ...]
    runs: int

    @classmethod
    def of(cls, program: Program, times: Sequence[float], runs: int) -> "StepTimes":
        """Join the steps of a program with their seconds."""
        steps = [
            StepProfile(described(step), tuple(step.nodes), step.writes[0].shape, 1e3 * seconds)
            for step, seconds in zip(program.steps, times, strict=True)
        ]
        return cls(tuple(steps), runs)

    @property
    def total_ms(self) -> float:
        """The sum of the steps."""
        return sum(step.ms for step in self.steps)

    def table(self) -> Table:
        """One row for each step."""
        columns = (
            Column("step", folds=True),
            Column("nodes", folds=True),
            Column("result"),
            Column("ms", right=True),
            Column("share", right=True),
        )
        total = self.total_ms or 1.0
        rows = tuple(
            [
                (
                    step.step,
                    _names(step.nodes),
                    "×".join(map(str, step.shape)),
                    f"{step.ms:.3f}",
                    f"{100 * step.ms / total:.1f} %",
                )
                for step in self.steps
            ]
        )
        footer = f"{len(self.steps)} steps · sum {self.total_ms:.3f} ms · least of {self.runs} runs"
        return Table(columns, rows, footer)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return asdict(self)


def _names(nodes: Sequence[str]) -> str:
    """The first node, and how many more."""
    more = len(nodes) - 1
    return (nodes[0] if nodes else "") + (f" and {more} more" if more > 0 else "")
