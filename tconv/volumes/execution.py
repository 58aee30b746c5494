"""Execution of a run: its target, its plan, the tasks that are left to do, and its report."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from time import monotonic
from typing import Any, NamedTuple

from tconv.errors import ParameterError
from tconv.geometry.arguments import as_flag, as_integer
from tconv.geometry.parts import sizes
from tconv.messages import show
from tconv.progress import Progress, progress_bar
from tconv.system.topology import core_count
from tconv.volumes.byte_sizes import as_bytes, in_words
from tconv.volumes.computation import Computation, Grid
from tconv.volumes.report import Conversion
from tconv.volumes.schedulers import Cluster, Threads
from tconv.volumes.target import (
    Target,
    check_apart,
    check_removable,
    check_type,
    create_target,
    existing_target,
    remove_target,
)
from tconv.volumes.token import Token
from tconv.volumes.work import Work

__all__ = ["Limits", "Planned", "Run"]

_CODE_BYTES = 2**27  # of LLVM, kernels, and the loop and threads of Zarr, in each process


class Limits(NamedTuple):
    """What a plan has to keep to: bytes of all, those that are held without a task, and tasks."""

    memory: int
    held: int
    workers: int
    processes: int


class Planned(NamedTuple):
    """Chunks and shards of a target, what a task and the run take, and what makes the work."""

    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    task_bytes: int
    needed_bytes: int
    work: Callable[[Target], Work]


@dataclass(frozen=True)
class Run:
    """How a run goes, as a caller asks for it: see `convert`."""

    target: Any
    limit: int
    workers: int | None
    scheduler: Any
    resume: bool
    overwrite: bool
    verify: bool
    progress: Any

    @classmethod
    def of(
        cls,
        target: Any,
        memory: int | str,
        workers: int | None,
        scheduler: Any,
        resume: bool,
        overwrite: bool,
        verify: bool,
        progress: Any,
    ) -> "Run":
        """Check the arguments, before anything is opened."""
        if target is None:
            raise ParameterError(
                "target must be a path or URL; pass target=, where the result goes."
            )
        limit, verify = as_bytes(memory, "memory"), as_flag(verify, "verify")
        resume, overwrite = as_flag(resume, "resume"), as_flag(overwrite, "overwrite")
        return cls(target, limit, workers, scheduler, resume, overwrite, verify, progress)

    def execute(
        self,
        made: Computation,
        token: Token,
        plan: Callable[[Limits, Any, Any], Planned],
        chunks: Any,
        shards: Any,
    ) -> Conversion:
        """Create or find the target, plan, and compute the chunks that are missing.

        `plan` gets the limits, and chunks and shards as they are given or as the target has them.
        """
        began, target = monotonic(), self.target
        check_type(made)
        check_apart(target, made.source.location)
        if self.overwrite:
            check_removable(target)
        found = None if self.overwrite else existing_target(target, made, token)
        if found is not None:
            _check_begun(found, self.resume, chunks, shards)
            chunks, shards = found.chunks, found.shards
        with _scheduler(self.scheduler, self.workers) as executor:
            held = executor.held_bytes + executor.processes * _CODE_BYTES
            most = min(self.limit, executor.most_bytes)
            limits = Limits(most, held, executor.workers, executor.processes)
            planned = plan(limits, chunks, shards)
            if self.overwrite:
                remove_target(target)
            if found is None:
                found = create_target(
                    target, made, token, planned.chunks, planned.shards, self.overwrite
                )
            counter = _run(planned.work(found), executor, self.verify, self.progress)
        return Conversion(
            source=str(made.source),
            target=str(found),
            source_shape=made.source.shape,
            shape=made.result_shape,
            dtype=made.result_dtype.name,
            chunks=planned.chunks,
            shards=planned.shards,
            computed=counter.computed,
            found=counter.kept,
            damaged=counter.damaged,
            workers=executor.workers,
            task_bytes=planned.task_bytes,
            needed_bytes=planned.needed_bytes,
            elapsed_s=monotonic() - began,
            written_bytes=counter.written_bytes,
        )


def _check_begun(target: Target, resume: bool, chunks: Any, shards: Any) -> None:
    """Refuse to go on with a target where that is not wanted, or in other chunks."""
    name = str(target)
    if not resume:
        raise ParameterError(
            f"target={name!r} has been begun; pass resume=True to go on, or overwrite=True to "
            "begin anew."
        )
    for word, given, there in (
        ("chunks", chunks, target.chunks),
        ("shards", shards, target.shards),
    ):
        if given is not None and tuple(given) != there:
            raise ParameterError(
                f"{word}={show(given)} are not those of target={name!r}, {there}; leave them out "
                "to go on, or pass overwrite=True (-f)."
            )


def _run(work: Work, executor: Threads | Cluster, verify: bool, progress: Any) -> "_Counter":
    """Compute the chunks that are missing, and with `verify` those that cannot be read."""
    target, grid = work.target, work.volume.grid
    made = work.volume.made
    there = {_number(made, grid, index) for index in target.finished()}
    counter = _Counter(work, 0 if verify else len(there), there)
    if verify or len(there) < len(grid):
        target.mark(complete=False)
        tasks = ((n, n in there) for n in range(len(grid)) if verify or n not in there)
        with _progress(progress, counter):
            executor.run(work, tasks, counter)
        _check_end(made, target, len(grid))
    target.mark(complete=True)
    target.remove_leftovers()
    return counter


class _Counter:
    """Counts tasks as they end, and tells of them."""

    def __init__(self, work: Work, kept: int, there: set[int]) -> None:
        self._work, self._there = work, there
        self.kept, self.computed, self.damaged, self.written_bytes = kept, 0, 0, 0
        self.tell: Progress | None = None

    def __call__(self, number: int, wrote: bool) -> None:
        grid, made = self._work.volume.grid, self._work.volume.made
        if wrote:
            self.computed += 1
            self.damaged += number in self._there
            cells = prod(sizes(grid.box(grid.index_of(number))))
            self.written_bytes += cells * made.result_dtype.itemsize
        else:
            self.kept += 1
        if self.tell is not None:
            self.tell(self.kept + self.computed, len(grid))


@contextmanager
def _progress(progress: Any, counter: _Counter) -> Iterator[None]:
    """Let the counter tell a function, or a bar on a terminal."""
    if callable(progress):
        counter.tell = progress
        yield
    elif as_flag(progress, "progress"):
        with progress_bar("chunks", lambda: in_words(counter.written_bytes)) as counter.tell:
            yield
    else:
        yield


@contextmanager
def _scheduler(scheduler: Any, workers: int | None) -> Iterator[Threads | Cluster]:
    if scheduler is None:
        cores = core_count()
        yield Threads(cores if workers is None else min(as_integer(workers, "workers", 1), cores))
        return
    if workers is not None:
        raise ParameterError("workers are those of the scheduler; pass only one of the two.")
    cluster = Cluster(scheduler)
    try:
        yield cluster
    finally:
        cluster.close()


def _number(made: Computation, grid: Grid, index: tuple[int, ...]) -> int:
    """Number of the task with an index in the target."""
    found = 0
    for n, size in zip(index, made.without_channels(grid.shape), strict=True):
        found = found * size + n
    return found


def _check_end(made: Computation, target: Target, count: int) -> None:
    """Check that every chunk is there, and that all come from one state of the source."""
    if made.source.has_changed():
        raise OSError(
            f"source {str(made.source)!r} has changed since the run began, so the chunks of target "
            f"{str(target)!r} may be of two states; run again with overwrite=True (-f)."
        )
    missing = count - len(target.finished())
    if missing:
        raise OSError(
            f"{missing:,} chunks that workers wrote are not in target {str(target)!r}; give a "
            "target that all of them reach, such as a shared folder, then run again."
        )
