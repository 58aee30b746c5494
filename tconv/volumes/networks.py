"""Networks over volumes: from one array on disk to another, tile by tile."""

import os
from collections.abc import Callable
from hashlib import sha256
from math import ceil, prod
from typing import Any

import numpy as np

from tconv import __version__
from tconv.dask.source import open_source
from tconv.errors import MemoryLimitError, ParameterError, ShapeError
from tconv.geometry.arguments import as_integer, entries_of
from tconv.geometry.parts import sizes
from tconv.graph import Graph
from tconv.messages import show
from tconv.volumes.byte_sizes import in_words
from tconv.volumes.execution import Limits, Planned, Run
from tconv.volumes.network_volume import NetworkComputation, NetworkVolume, TileGrid
from tconv.volumes.report import Conversion
from tconv.volumes.token import Token, told
from tconv.volumes.work import Work

__all__ = ["run"]

_CODEC_COPIES = 2  # of a chunk: decoded, and as it is stored, at most as large
_ITEM_BYTES = 4
Sizes = tuple[int, ...]


def run(
    model: Any,
    source: "str | os.PathLike[str] | Any",
    target: "str | os.PathLike[str] | Any" = None,
    *,
    tile: "str | int | tuple[int, ...]" = "auto",
    input_name: str | None = None,
    output_name: str | None = None,
    memory: int | str = "2GB",
    workers: int | None = None,
    scheduler: Any = None,
    resume: bool = True,
    overwrite: bool = False,
    verify: bool = False,
    progress: bool | Callable[[int, int], None] = True,
) -> Conversion:
    """Compute a network of convolutions over an array on disk, tile by tile, to a Zarr array.

    Each task reads what its tile depends on: the tile and the context that the receptive field of
    the network asks for, computed from the windows of its nodes. So the target equals the result of
    the whole in one call, bit by bit where that is computed with ``method="direct"``; there are no
    seams, and nothing is blended. A run that was stopped goes on where it was when it is started
    again with the same arguments.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto, of convolutions, transposed ones, pooling, resampling
        and elementwise operators
    source : path or URL of a Zarr array or of an .npy file, or a `zarr.Array`; of shape (N, C, *I),
        (C, *I), or (*I) for one channel. It is converted to float32.
    target : path, URL or store of Zarr; the result (N, M, *O), (M, *O), or (*O) where neither has
        an axis of channels. If the source is part of an OME-Zarr, so is the target.
    tile : sizes of the result's tiles in space, one number for all axes, or "auto": the largest
        that fit into `memory`, because the context of small ones costs more than they do. Each tile
        is a chunk of the target.
    input_name, output_name : values within the model, which is then cut there; by default its only
        input, and its only output
    memory, workers, scheduler, resume, overwrite, verify, progress : as for `convert`

    Returns
    -------
    Conversion

    Raises
    ------
    UnsupportedError : a node sees all of an axis, such as a GlobalAveragePool or an
        InstanceNormalization, or tconv has no program for it; its name, and why
    ParameterError, ShapeError, DTypeError : an argument, a target of other numbers, or a source of
        sizes that the network does not take
    MemoryLimitError : no tiles fit into `memory`; says the least that is enough
    ModelError, OSError : model or source cannot be read, or the target written; finished tiles stay

    >>> import numpy as np, tempfile, zarr
    >>> from tconv import ConvTranspose2d
    >>> model = ConvTranspose2d(1, 1, 4, stride=2, padding=1, rng=0).to_onnx()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/x.npy", np.ones((20, 20), np.float32))
    ...     report = run(model, f"{folder}/x.npy", f"{folder}/y.zarr", tile=16)
    ...     report.shape, report.chunks, zarr.open_array(f"{folder}/y.zarr").shape
    ((40, 40), (16, 16), (40, 40))
    """
    how = Run.of(target, memory, workers, scheduler, resume, overwrite, verify, progress)
    graph, channels, rank = _opened(model, input_name, output_name)
    made = NetworkComputation.of(open_source(source), graph, channels, rank, 1)
    token = Token(
        {
            "operation": "network",
            "model": _hash_of(graph),
            "source": f"{made.source.dtype} {made.source.shape} in state {made.source.state[:16]}",
            "version": __version__,
        }
    )
    given = None if tile == "auto" else _as_tile(tile, made)

    def planned(limits: Limits, chunks: Any, shards: Any) -> Planned:
        sizes_of = chunks or given or _fitting(made, limits)
        volume = NetworkVolume(made, TileGrid.regular(made.result_shape, sizes_of))
        packed = made.tiles.expected_packed_bytes
        base = limits.held + limits.processes * packed
        task = _moved_bytes(volume)
        if base + limits.workers * task <= limits.memory:  # else there may be no such program
            task = _task_bytes(volume)
        needed = base + limits.workers * task
        if needed > limits.memory:
            raise MemoryLimitError(
                f"memory={limits.memory:,} must be at least {needed:,} bytes: "
                f"{in_words(limits.held)} for Python and its libraries, {in_words(packed)} for "
                f"weights, {in_words(task)} for each of {limits.workers} tasks; pass a smaller "
                f'tile, memory="{ceil(needed / 10**6)}MB" or fewer workers.'
            )
        return Planned(
            sizes_of, None, task, needed, lambda target: Work(volume, target, kept_chunks=0)
        )

    return how.execute(made, token, planned, given, None)


def _opened(
    model: Any, input_name: str | None, output_name: str | None
) -> tuple[Graph, int | None, int]:
    """The graph of a model, the channels of its input, and the number of its axes in space."""
    from tconv.onnx.model_part import known_sizes, open_model, part_of_model, value_names

    proto = open_model(model)
    declared, made = value_names(proto)
    outputs = [each.name for each in proto.graph.output]
    names = []
    for word, name, all_names in (
        ("input_name", input_name, declared),
        ("output_name", output_name, outputs),
    ):
        if name is None and len(all_names) != 1:
            raise ParameterError(
                f"{word} must be given, as the model has {len(all_names)}: "
                f"{', '.join(map(show, all_names))}; pass one of them, or the name of a value "
                "within the model."
            )
        if name is not None and name not in made and name not in all_names:
            raise ParameterError(
                f"{word}={show(name)} is no value of the model; pass one of "
                f"{', '.join(map(show, all_names))}, or the name of a value within the model."
            )
        names.append(all_names[0] if name is None else name)
    graph = part_of_model(proto, names[:1], names[1:], {})
    sizes_of = known_sizes(proto, names[0])
    if len(sizes_of) < 3:
        raise ShapeError(
            f"input {names[0]!r} has shape {tuple(sizes_of)}, must have axes of images, of "
            "channels, and in space; cut the model at a value that a convolution reads."
        )
    return graph, sizes_of[1], len(sizes_of) - 2


def _hash_of(graph: Graph) -> str:
    """Hash of nodes and weights."""
    found = sha256(repr([graph.inputs, graph.outputs, graph.nodes]).encode())
    for name in sorted(graph.constants):
        found.update(f"{name} {told(graph.constants[name])}".encode())
    return found.hexdigest()[:16]


def _as_tile(tile: Any, made: NetworkComputation) -> Sizes:
    """Sizes of chunks along every axis of the target."""
    entries = entries_of(tile)
    if entries is None and isinstance(tile, str):
        raise ParameterError(
            f'tile={show(tile)} must be "auto", a size, or {made.rank} sizes; pass 128 for example.'
        )
    each = [tile] * made.rank if entries is None else list(entries)
    if len(each) != made.rank:
        raise ParameterError(
            f"tile={show(tile)} must be one size, or {made.rank}, one for each axis in space."
        )
    found = [as_integer(size, "tile", 1) for size in each]
    return _with_first_axes(made, found)


def _with_first_axes(made: NetworkComputation, tile: Any) -> Sizes:
    """A tile's sizes with one image and all channels before them, cut to the target's."""
    shape = made.result_shape
    first = shape[: len(shape) - made.rank]
    if made.batched:
        first = (1, *first[1:])
    last = shape[len(first) :]
    return (*first, *(min(size, whole) for size, whole in zip(tile, last, strict=True)))


def _fitting(made: NetworkComputation, limits: Limits) -> Sizes:
    """The largest tiles that fit: the longest axis is halved until they do."""
    tiles, shape = made.tiles, list(made.result_shape[-made.rank :])
    periods = [tiles.period(n) for n in range(made.rank)]
    while True:
        chunks = _with_first_axes(made, shape)
        volume = NetworkVolume(made, TileGrid.regular(made.result_shape, chunks))
        packed = limits.processes * tiles.expected_packed_bytes
        room = (limits.memory - limits.held - packed) // limits.workers
        enough = len(volume.grid) >= limits.workers or max(shape) < 2 * max(periods)
        # Sizes of which no program can be are far beyond what is allowed to move.
        if enough and _moved_bytes(volume) <= room and _task_bytes(volume) <= room:
            return chunks
        longest = max(range(made.rank), key=lambda n: shape[n] / periods[n])
        period = periods[longest]
        half = max(ceil(shape[longest] / 2 / period) * period, period)
        if half >= shape[longest]:
            return chunks  # of which the plan says that they are too large
        shape[longest] = half


def _task_bytes(volume: NetworkVolume) -> int:
    """What the largest task takes in all: it reads, computes, then writes."""
    return _moved_bytes(volume) + volume.computing_bytes(volume.largest())


def _moved_bytes(volume: NetworkVolume) -> int:
    """What the largest task takes to read and to write."""
    source, box = volume.made.source, volume.largest()
    window, itemsize = sizes(volume.window(box)), np.dtype(source.dtype).itemsize
    converted = _ITEM_BYTES * (np.dtype(source.dtype) != np.float32)
    reading = source.read_bytes(window) + prod(window) * (itemsize + converted)
    return reading + (1 + _CODEC_COPIES) * prod(sizes(box)) * _ITEM_BYTES
