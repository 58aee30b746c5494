"""Conversion of one array on disk to another by a transposed convolution, chunk by chunk."""

import os
from collections.abc import Callable
from typing import Any

from tconv.dask.source import open_source
from tconv.dask.volume import Contraction
from tconv.geometry.arguments import as_flag
from tconv.volumes.chunking import plan_layout
from tconv.volumes.execution import Limits, Planned, Run
from tconv.volumes.report import Conversion
from tconv.volumes.token import Token
from tconv.volumes.work import Work

__all__ = ["convert"]


def convert(
    source: "str | os.PathLike[str] | Any",
    weight: Any,
    bias: Any = None,
    target: "str | os.PathLike[str] | Any" = None,
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
    **settings: Any,
) -> Conversion:
    """Compute the transposed convolution of an array on disk, chunk by chunk, to a Zarr array.

    Each task reads the window of one chunk (or shard) of the target, computes and writes it. The
    target has the bits of ``conv_transpose(..., method="direct")`` of the whole. A run that was
    stopped, by Ctrl-C, a kill or an error, goes on where it was when it is started again with the
    same arguments.

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
    memory : bytes that Python with its libraries and all tasks may take, or "2GB", "512MiB", on a
        cluster in all workers; what the program itself holds does not count
    workers : tasks at once on this machine, at most one a core, which is the default
    scheduler : address of a dask.distributed scheduler, or its `Client`; by default Dask's threads
    resume : go on with a target of the same token: a hash of source, weight, bias, settings and
        version
    overwrite : remove what Zarr holds at the target first
    verify : read the chunks that are there, and compute again those that cannot be decoded
    progress : show a bar on a terminal, or a function that is told the tasks done and all tasks
    settings : keywords of `conv_transpose`, or of `conv`, but for padding_mode, out and max_bytes;
        `method` is "direct" by default, and `threads`, of each task, 1

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

    A finished chunk is one whose key is in the store. Zarr renames files when they are whole, and
    object stores take objects whole, so a killed run leaves nothing that is half finished. A loss
    of power may, and so may a codec pipeline that writes in place: then pass ``verify=True``.

    Only one run at a time may write to a target: the first to end removes what is half written.

    >>> import numpy as np, tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.ones((1, 6, 6), np.float32))
    ...     w = np.ones((1, 2, 3, 3), np.float32)
    ...     report = convert(f"{folder}/x.npy", w, target=f"{folder}/y.zarr", stride=2)
    ...     report.shape, float(zarr.open_array(f"{folder}/y.zarr")[1, 2, 2])
    ((2, 13, 13), 4.0)
    """
    run = Run.of(target, memory, workers, scheduler, resume, overwrite, verify, progress)
    made, weight, bias = Contraction.of(
        open_source(source), weight, bias, as_flag(adjoint, "adjoint"), settings
    )

    def planned(limits: Limits, chunks: Any, shards: Any) -> Planned:
        held = limits.held + limits.processes * weight.nbytes
        layout = plan_layout(
            made, chunks, shards, limits.memory, limits.workers, held, limits.processes
        )
        return Planned(
            layout.chunks,
            layout.shards,
            layout.task_bytes,
            layout.needed_bytes,
            lambda target: Work(layout.volume, target, weight, bias, layout.kept_chunks),
        )

    return run.execute(made, Token.of(made, weight, bias), planned, chunks, shards)
