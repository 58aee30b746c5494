"""Conversion of one array on disk to another: checks, plan, the tasks left to do, and their run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from time import monotonic
from typing import Any, Unpack

from tconv.dask.chunk_grid import ChunkGrid
from tconv.dask.source import open_source
from tconv.dask.volume import Contraction
from tconv.errors import ParameterError
from tconv.geometry.arguments import as_flag, as_integer
from tconv.geometry.keywords import VolumeKeywords
from tconv.geometry.parts import sizes
from tconv.messages import show
from tconv.progress import Progress, progress_bar
from tconv.signatures import readable
from tconv.system.topology import core_count
from tconv.volumes.byte_sizes import as_bytes, in_words
from tconv.volumes.chunking import plan_layout
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

__all__ = ["convert"]

_CODE_BYTES = 2**27  # of LLVM, kernels, and the loop and threads of Zarr, in each process


@readable
def convert(
    source: str | os.PathLike[str] | Any,
    weight: Any,
    bias: Any = None,
    target: str | os.PathLike[str] | Any = None,
    *,
    adjoint: bool = False,
    chunks: tuple[int, ...] | None = None,
    shards: tuple[int, ...] | None = None,
    memory: int | str = "2GB",
    workers: int | None = None,
    scheduler: Any = None,
    resume: bool = True,
    overwrite: bool = False,
    verify: bool = False,
    progress: bool | Callable[[int, int], None] = True,
    **settings: Unpack[VolumeKeywords],
) -> Conversion:
    """Compute the transposed convolution of an array on disk, chunk by chunk, to a Zarr array.

    Each task reads the part of the source that one chunk (or shard) of the target needs, computes
    the chunk and writes it. The target has the bits of ``conv_transpose(..., method="direct")`` of
    the whole source. If Ctrl-C, a kill or an error stops a run, a later run with the same arguments
    continues it.

    Parameters
    ----------
    source : path or URL of a Zarr array (format 2 or 3) or of an .npy file, or a `zarr.Array`; of
        shape (N, C, *I), (C, *I), or (*I) for one channel
    weight : array (C, M // groups, *K) of the source's type, or see `dtype` of `conv_transpose`
    bias : array (M,)
    target : path, URL or store of Zarr; the result (N, M, *O), (M, *O), or (*O) where neither has
        an axis of channels. If the source is part of an OME-Zarr, so is the target, and its array
        is called "0": axes go along, scales are divided by the stride.
    adjoint : compute ``conv(source, weight, conjugate=True)``
    chunks : of the target; by default those of the source times the stride, halved until they fit
        into `memory`
    shards : of the target, multiples of chunks: each is one task, and one key of the store
    memory : bytes, or "2GB", "512MiB": most memory of Python, its libraries and all tasks, on a
        cluster in all workers; other arrays of your program do not count
    workers : tasks at once on this machine, at most one a core, which is the default
    scheduler : address of a dask.distributed scheduler, or its `Client`; by default Dask's threads
    resume : go on with a target of the same token: a hash of source, weight, bias, settings and
        version
    overwrite : remove what Zarr holds at the target first
    verify : read the chunks that are there, and compute again those that cannot be decoded
    progress : show a bar on a terminal, or a function that gets the numbers of tasks done and of
        all tasks
    method : as for `conv_transpose`, but "direct" by default
    threads : of each task, 1 by default
    all others : as for `conv_transpose`, or with `adjoint` as for `conv`

    Returns
    -------
    Conversion

    Raises
    ------
    ParameterError, ShapeError, DTypeError : an argument, or a target of other numbers
    MemoryLimitError : no chunks fit into `memory`; says the least that is enough
    OSError : the source cannot be read, or the target written; finished chunks stay

    Notes
    -----
    Each task reads and writes as many chunks at once as Zarr's setting "async.concurrency" says,
    10 by default; with 2 it needs less memory.

    A chunk is finished when its key is in the store. Zarr renames a file when it is complete, and
    object stores take complete objects only, so a killed run leaves no incomplete chunk. A loss of
    power may leave one, and so may a codec pipeline that writes in place: then pass
    ``verify=True``.

    Only one run at a time may write to a target: the first to end removes half-written files.

    >>> import numpy as np, tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.ones((1, 6, 6), np.float32))
    ...     w = np.ones((1, 2, 3, 3), np.float32)
    ...     report = convert(f"{folder}/x.npy", w, target=f"{folder}/y.zarr", stride=2)
    ...     report.shape, float(zarr.open_array(f"{folder}/y.zarr")[1, 2, 2])
    ((2, 13, 13), 4.0)
    """
    began = monotonic()
    if target is None:
        raise ParameterError("target must be a path or URL; pass target=, where the result goes.")
    limit, verify = as_bytes(memory, "memory"), as_flag(verify, "verify")
    resume, overwrite = as_flag(resume, "resume"), as_flag(overwrite, "overwrite")
    made, weight, bias = Contraction.of(
        open_source(source), weight, bias, as_flag(adjoint, "adjoint"), settings
    )
    check_type(made)
    check_apart(target, made.source.location)
    if overwrite:
        check_removable(target)
    token = Token.of(made, weight, bias)
    found = None if overwrite else existing_target(target, made, token)
    if found is not None:
        _check_begun(found, resume, chunks, shards)
        chunks, shards = found.chunks, found.shards
    with _scheduler(scheduler, workers) as executor:
        held = executor.held_bytes + executor.processes * _CODE_BYTES
        layout = plan_layout(
            made,
            chunks,
            shards,
            min(limit, executor.most_bytes),
            executor.workers,
            held + executor.processes * weight.nbytes,
            executor.processes,
        )
        if overwrite:
            remove_target(target)
        if found is None:
            found = create_target(target, made, token, layout.chunks, layout.shards, overwrite)
        work = Work(layout.volume, found, weight, bias, layout.kept_chunks)
        counter = _run(work, executor, verify, progress)
    return Conversion(
        source=str(made.source),
        target=str(found),
        source_shape=made.source.shape,
        shape=made.result_shape,
        dtype=made.result_dtype.name,
        chunks=layout.chunks,
        shards=layout.shards,
        computed=counter.computed,
        found=counter.kept,
        damaged=counter.damaged,
        workers=executor.workers,
        task_bytes=layout.task_bytes,
        needed_bytes=layout.needed_bytes,
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
                "to go on, or pass overwrite=True."
            )


def _run(work: Work, executor: Threads | Cluster, verify: bool, progress: Any) -> _Counter:
    """Compute the chunks that are missing, and with `verify` those that cannot be read."""
    target, grid = work.target, work.volume.grid
    made = work.volume.contraction
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
        grid, made = self._work.volume.grid, self._work.volume.contraction
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


def _number(made: Contraction, grid: ChunkGrid, index: tuple[int, ...]) -> int:
    """Number of the task with an index in the target."""
    found = 0
    for n, size in zip(index, made.without_channels(grid.shape), strict=True):
        found = found * size + n
    return found


def _check_end(made: Contraction, target: Target, count: int) -> None:
    """Check that every chunk is there, and that all come from one state of the source."""
    if made.source.has_changed():
        raise OSError(
            f"source {str(made.source)!r} has changed since the run began, so the chunks of target "
            f"{str(target)!r} may be of two states; run again with overwrite=True."
        )
    missing = count - len(target.finished())
    if missing:
        raise OSError(
            f"{missing:,} chunks that workers wrote are not in target {str(target)!r}; give a "
            "target that all of them reach, such as a shared folder, then run again."
        )
