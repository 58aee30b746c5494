"""Chunks of a target, and the memory that a run takes: planned before anything runs.

A task computes one chunk, or one shard, of the target. Unless they are given, chunks are the
source's times the stride; as long as a task takes more than its share of the memory they are
halved: images first, then the longest spatial axis, then the channels, where that keeps the order
of sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from tconv.dask.chunk_grid import ChunkGrid, regular
from tconv.dask.volume import Contraction, Volume, keeps_order
from tconv.errors import MemoryLimitError, ParameterError, ShapeError
from tconv.geometry.arguments import as_integer, entries_of
from tconv.geometry.geometry import OPERANDS
from tconv.messages import show
from tconv.ops.part_memory import PartMemory
from tconv.volumes.byte_sizes import in_words
from tconv.volumes.chunk_cache import chunks_to_keep

__all__ = ["Layout", "plan_layout"]

_CODEC_COPIES = 2  # of a chunk: decoded, and as it is stored, at most as large
_LEAST_CHUNK_BYTES = 2**16  # of a chunk that is not given; a smaller one saves no memory
_FILE_CHUNK_BYTES = 2**25  # of a target whose source is a file without chunks
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Chunks and shards of a target, and what a run needs.

    Attributes
    ----------
    chunks, shards : of the target, in its layout; shards None for none
    volume : the tasks
    kept_chunks : decoded chunks of the source that each process keeps for the next tasks
    task_bytes, needed_bytes : the most that one task takes, and the whole run
    """

    chunks: Sizes
    shards: Sizes | None
    volume: Volume
    kept_chunks: int
    task_bytes: int
    needed_bytes: int


def plan_layout(
    made: Contraction,
    chunks: Any,
    shards: Any,
    memory: int,
    workers: int,
    base: int,
    processes: int = 1,
) -> Layout:
    """Return the layout of a target whose run stays within a bound.

    Parameters
    ----------
    chunks, shards : as the caller gave them, or None
    memory : bytes that all workers may take together
    base : bytes that their processes take without a task, weights included
    processes : that the workers are threads of

    Raises
    ------
    MemoryLimitError : no chunks are small enough; says the least that is enough
    ParameterError, ShapeError : chunks or shards that cannot be
    """
    shape = made.geometry.shape_of(made.want)
    given = _as_sizes(chunks, "chunks", made)
    of_shards = _as_sizes(shards, "shards", made)
    if of_shards is not None and given is None:
        raise ParameterError("shards need chunks, which they are made of; pass chunks, too.")

    def needed(task: Sizes) -> int:
        """The least: chunks of the source are decoded one after the other, and one is kept."""
        least = workers * _task_bytes(made, task, caches=True)
        return base + least + processes * made.source.chunk_bytes

    if given is not None:
        for name, sizes in (("chunks", given), ("shards", of_shards)):
            _check_sizes(made, sizes, name)
        task = of_shards or given
        if any(shard % chunk for shard, chunk in zip(task, given, strict=True)):
            raise ShapeError(
                f"shards={made.without_channels(task)} must be multiples of "
                f"chunks={made.without_channels(given)}; pass such shards."
            )
        fix = "smaller chunks, "
    else:
        task, fix = _first_chunks(made, shape), ""
        while needed(task) > memory and (smaller := _halved(made, shape, task)) is not None:
            task = smaller
        given = task
    least = needed(task)
    if least > memory:
        raise MemoryLimitError(
            f"memory={memory:,} must be at least {least:,} bytes: {in_words(base)} for Python and "
            f"its libraries, {in_words((least - base) / workers)} for each of {workers} tasks; "
            f'pass {fix}memory="{ceil(least / 10**6)}MB" or fewer workers.'
        )
    without, volume = made.without_channels, Volume(made, _grid(made, task))
    kept, of_task = _kept_chunks(volume, task, memory - base, workers, processes)
    return Layout(
        without(given),
        None if of_shards is None else without(of_shards),
        volume,
        kept,
        of_task,
        base + workers * of_task + processes * kept * made.source.chunk_bytes,
    )


def _kept_chunks(
    volume: Volume, task: Sizes, memory: int, workers: int, processes: int
) -> tuple[int, int]:
    """How many decoded chunks each process keeps, and what a task then takes.

    Where none is worth keeping, Zarr decodes several at once; if memory is too short for that, one
    after the other, and the last one is kept.
    """
    made = volume.made
    of_task = _task_bytes(made, task, caches=True)
    room = (memory - workers * of_task) // processes
    reads = made.of_source(tuple(volume.grid.reads))
    kept = chunks_to_keep(made.source, reads, workers // processes, room)
    if kept:
        return kept, of_task
    at_once = _task_bytes(made, task)
    is_file = made.source.chunks is None
    return (0, at_once) if is_file or workers * at_once <= memory else (1, of_task)


def _task_bytes(made: Contraction, task: Sizes, caches: bool = False) -> int:
    """What one task takes in all: it reads, computes, then writes.

    Not the most at once: the C library keeps freed memory, for the thread that had it. A task that
    `caches` decodes one chunk at a time, which counts with those that are kept.
    """
    part = _grid(made, task).largest().geometry
    memory = PartMemory.of(part, made.want, made.dtype)
    source, window = made.source, made.of_source(part.shape_of(OPERANDS[made.want][0]))
    one_by_one = caches and source.chunks is not None
    reading = 2 * source.chunk_bytes if one_by_one else source.read_bytes(window)
    if made.dtype != np.dtype(source.dtype).name:  # it is read in its own type, then converted
        reading += prod(window) * np.dtype(source.dtype).itemsize
    # A chunk at the border of the target is filled up before it is stored.
    writing = _CODEC_COPIES * prod(task) * made.result_dtype.itemsize
    return reading + memory.total + writing


def _first_chunks(made: Contraction, shape: Sizes) -> Sizes:
    """Chunks of the source times the stride; those of a file so that they are no larger than some.

    For the adjoint, whose chunks need windows of the stride's size, the chunks of the source.
    """
    geometry, of_source = made.geometry, made.source_chunks
    if of_source is None:
        task, itemsize = shape, made.result_dtype.itemsize
        while prod(task) * itemsize > _FILE_CHUNK_BYTES:
            smaller = _halved(made, shape, task)
            if smaller is None:
                break
            task = smaller
        return task
    spatial = list(_spatial(made, of_source))
    if made.want == "y":
        spatial = [n * axis.stride for n, axis in zip(spatial, geometry.axes, strict=True)]
    images = of_source[: geometry.batched]
    channels = shape[made.channel_axis]
    ordered = [*images, *_with_channels(made, channels, spatial)]
    return tuple(max(min(n, size), 1) for n, size in zip(ordered, shape, strict=True))


def _halved(made: Contraction, shape: Sizes, task: Sizes) -> Sizes | None:
    """The next smaller chunks; None if there are none."""
    found, geometry = list(task), made.geometry
    if prod(task) * made.result_dtype.itemsize <= _LEAST_CHUNK_BYTES:
        return None
    if geometry.batched and task[0] > 1:
        found[0] = ceil(task[0] / 2)
        return tuple(found)
    spatial = [n for n in range(geometry.batched, len(task)) if n != made.channel_axis]
    longest = max(spatial, key=lambda n: task[n])
    if task[longest] > 1:
        found[longest] = ceil(task[longest] / 2)
        return tuple(found)
    fewer = [n for n in _channel_chunks(made) if n < task[made.channel_axis]]
    if not fewer:
        return None
    found[made.channel_axis] = max(fewer)
    return tuple(found)


def _channel_chunks(made: Contraction) -> list[int]:
    """Sizes of chunks of channels that keep the order of sums, and cut no group twice."""
    geometry = made.geometry
    whole = geometry.in_channels if made.want == "x" else geometry.out_channels
    if not keeps_order(geometry, made.dtype):
        return [whole]
    per = whole // geometry.groups
    return [n for n in range(1, whole + 1) if n % per == 0 or per % n == 0]


def _grid(made: Contraction, task: Sizes) -> ChunkGrid:
    """The grid of tasks of these sizes."""
    geometry, want = made.geometry, made.want
    shape = geometry.shape_of(want)
    along = [regular(size, step) for size, step in zip(shape, task, strict=True)]
    images = along[0] if geometry.batched else ((0, 1),)
    channels = along[made.channel_axis]
    return ChunkGrid(geometry, want, images, channels, tuple(_spatial(made, along)))


def _spatial(made: Contraction, entries: Sequence[Any]) -> list[Any]:
    return [
        each
        for n, each in enumerate(entries)
        if n >= made.geometry.batched and n != made.channel_axis
    ]


def _with_channels(made: Contraction, channels: Any, spatial: Sequence[Any]) -> list[Any]:
    is_last = made.geometry.data_format == "channels_last"
    return [*spatial, channels] if is_last else [channels, *spatial]


def _as_sizes(value: Any, name: str, made: Contraction) -> Sizes | None:
    """Sizes along every axis of the result, from those of the target; -1 is the whole axis."""
    if value is None:
        return None
    shape = made.geometry.shape_of(made.want)
    entries, of_target = entries_of(value), made.without_channels(shape)
    if entries is None or len(entries) != len(of_target):
        raise ParameterError(
            f"{name}={show(value)} must be {len(of_target)} sizes, one per axis of the target of "
            f"shape {of_target}; pass such a tuple."
        )
    sizes = [as_integer(each, f"{name}[{n}]", -1) for n, each in enumerate(entries)]
    if 0 in sizes:
        raise ParameterError(
            f"{name}={show(value)} must have sizes of 1 or more, or -1; pass them."
        )
    sizes = [size if n == -1 else n for n, size in zip(sizes, of_target, strict=True)]
    if made.drops_channels:
        sizes.insert(made.channel_axis, 1)
    return tuple(sizes)


def _check_sizes(made: Contraction, sizes: Sizes | None, name: str) -> None:
    """Refuse chunks of channels that would be computed in another order of sums."""
    if sizes is None:
        return
    n = made.channel_axis
    whole = made.geometry.shape_of(made.want)[n]
    allowed = _channel_chunks(made)
    if sizes[n] < whole and sizes[n] not in allowed:
        listed = ", ".join(map(str, allowed[:8]))
        raise ParameterError(
            f"{name}[{n}]={sizes[n]} must be one of {listed} channels, which are summed as all "
            f"{whole} are; pass one of these."
        )
