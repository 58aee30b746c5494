"""Reports of a model's program: its steps, its memory, and the time of each step."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tconv.graph import Program, described
from tconv.tables import Column, Table, Tabular

__all__ = ["ProgramReport", "StepReport", "StepTimes"]

_MIB = 2**20


@dataclass(frozen=True)
class StepReport:
    """One native step of a program: what it computes, of which nodes, and the result's shape.

    Several nodes are fused into one step. `expected_ms` is predicted; `ms` is measured by a
    profile, None in a report.
    """

    step: str
    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    expected_ms: float
    ms: float | None = None

    @classmethod
    def all_of(
        cls, program: Program, times: Sequence[float] | None = None
    ) -> tuple["StepReport", ...]:
        """Describe the steps of a program; `times` are their seconds."""
        measured = [None] * len(program.steps) if times is None else [1e3 * each for each in times]
        return tuple(
            [
                cls(described(step), tuple(step.nodes), step.writes[0].shape, us / 1e3, ms)
                for step, us, ms in zip(program.steps, program.steps_us, measured, strict=True)
            ]
        )


@dataclass(frozen=True)
class ProgramReport:
    """A program of tconv: its native steps, and its memory.

    `memory_bytes` is the block that all values between steps lie in; if no two of them shared
    memory they would take `unshared_bytes`. `packed_bytes` are the packed weights of the programs
    of all sizes.
    """

    steps: tuple[StepReport, ...]
    memory_bytes: int
    unshared_bytes: int
    packed_bytes: int

    @classmethod
    def of(cls, program: Program, packed_bytes: int) -> "ProgramReport":
        """Describe a program."""
        memory = program.block_bytes, program.buffer_bytes
        return cls(StepReport.all_of(program), *memory, packed_bytes)

    def __str__(self) -> str:
        nodes = sum(len(step.nodes) for step in self.steps)
        return (
            f"program: {len(self.steps)} steps of {nodes} nodes, values in "
            f"{self.memory_bytes / _MIB:.1f} MiB (unshared {self.unshared_bytes / _MIB:.1f}), "
            f"packed weights {self.packed_bytes / _MIB:.1f} MiB"
        )


@dataclass(frozen=True)
class StepTimes(Tabular):
    """The steps of a model's programs, each timed alone, with its start: the least of `runs` times.

    In a run steps follow each other without a return to Python, so the run takes less than the sum.
    """

    steps: tuple[StepReport, ...]
    runs: int

    @classmethod
    def of(cls, programs: Sequence[tuple[Program, Sequence[float]]], runs: int) -> "StepTimes":
        """Join the steps of programs with their seconds."""
        steps = [step for each in programs for step in StepReport.all_of(*each)]
        return cls(tuple(steps), runs)

    @property
    def total_ms(self) -> float:
        """The sum of the steps."""
        return sum(step.ms or 0.0 for step in self.steps)

    def table(self) -> Table:
        """One row for each step."""
        columns = (
            Column("step", folds=True),
            Column("nodes", folds=True),
            Column("result"),
            Column("predicted", right=True),
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
                    f"{step.expected_ms:.3f}",
                    f"{step.ms or 0.0:.3f}",
                    f"{100 * (step.ms or 0.0) / total:.1f} %",
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
