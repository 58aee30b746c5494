"""Verb `info`: versions, processor, memory, extras and kernel cache; or a model's convolutions."""

import os
import platform
from argparse import Namespace
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tconv import __version__
from tconv.cli.console import Answer, at
from tconv.cli.model_layers import layers_of
from tconv.cli.options import UsageError
from tconv.system.files import regular_file
from tconv.system.memory import available_bytes
from tconv.system.topology import core_count
from tconv.tables import Column, Table

__all__ = ["EXTRAS", "answer"]

EXTRAS = {
    "cli": ("rich", "pillow"),
    "onnx": ("onnx", "onnxruntime"),
    "torch": ("torch",),
    "jax": ("jax",),
    "volumes": ("dask", "distributed", "zarr"),
    "safetensors": ("safetensors",),
}
"""The libraries of each extra, under their names on package indexes."""

_MODULES = {"pillow": "PIL"}


def answer(options: Namespace) -> Answer:
    """List what a bug report should say about the machine, without importing any library.

    With a model, list its convolutions.

    >>> options = Namespace(model=None, size=None, cache=False, clear_cache=False, warm=None)
    >>> answer(options).result["tconv"] == tconv.__version__
    True
    """
    if options.model is not None:
        return _describe_model(options)
    if options.size is not None:
        raise UsageError(
            "--size needs MODEL", "option --size", "name an ONNX file, or leave it out"
        )
    blas = _blas()
    from tconv.engine import engine_state

    cores, all_cores, state = core_count(), os.cpu_count() or 1, engine_state()
    memory = available_bytes()
    extras = {name: {lib: _found(lib) for lib in libraries} for name, libraries in EXTRAS.items()}
    facts = (
        ("tconv", __version__),
        ("Python", platform.python_version()),
        ("NumPy", f"{np.__version__}, {blas}" if blas else np.__version__),
        ("platform", platform.platform()),
        ("processor", _processor()),
        ("cores usable", f"{cores} of {all_cores} ({_usable_cores()} by affinity)"),
        ("memory available", "–" if memory is None else f"{memory / 2**30:.1f} GiB"),
        ("engine", f"not used: {state.reason}" if state.reason else "machine code"),
        ("instruction set", state.instruction_set or "–"),
        ("llvmlite", f"{state.llvmlite or 'missing'}, LLVM {state.llvm or '–'}"),
        ("kernel cache", state.cache),
    )
    result: dict[str, Any] = {
        "tconv": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": blas or None,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores_usable": cores,
        "cores": all_cores,
        "cores_by_affinity": _usable_cores(),
        "memory_available_bytes": memory,
        "engine": state._asdict(),
        "extras": extras,
    }
    rows = tuple(
        (name, library, found or f"missing: pip install {library}")
        for name, libraries in extras.items()
        for library, found in libraries.items()
    )
    parts = [
        Table((Column("what"), Column("here", folds=True)), facts),
        Table((Column("extra"), Column("library"), Column("version")), rows),
    ]
    if options.warm:
        parts.append(_warm(options.warm, result))
    if options.cache or options.clear_cache or options.warm:
        parts.append(_cache(options.clear_cache, result))
    return Answer(tuple(parts), result)


def _describe_model(options: Namespace) -> Answer:
    """List the convolutions of a model."""
    for name in ("cache", "clear_cache", "warm"):
        if getattr(options, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} does not go with MODEL", f"option {option}", "leave one of the two out"
            )
    with regular_file(options.model):  # to report a wrong path before onnx is imported
        pass
    found = layers_of(options.model, options.size)
    return Answer(found.parts(), {"model": options.model, **found.as_dict()})


def _cache(clear: bool, result: dict[str, Any]) -> Table:
    """Describe the kernels on disk, after removing them if `clear`."""
    from tconv.engine import cache_info, clear_cache

    facts = []
    if clear:
        result["cache_files_removed"] = removed = clear_cache()
        facts.append(("files removed", f"{removed:,}"))
    found = cache_info()
    result["cache"] = dict(found)
    facts += [
        ("folder", found["folder"] or "none"),
        ("files", f"{found['files']:,}"),
        ("MB", f"{found['bytes'] / 1e6:.1f}"),
        ("usable", "yes" if found["usable"] else f"no: {found['reason']}"),
    ]
    return Table((Column("kernels on disk"), Column("", folds=True)), tuple(facts))


def _warm(model: str, result: dict[str, Any]) -> Table:
    """Compile a model's kernels ahead of its first run."""
    from tconv.onnx import warm

    with at(f"model {model!r}"):
        found = warm(model)
    result["warmed"] = [{"name": name, "plan": plan} for name, plan in found]
    return Table((Column("layer", folds=True), Column("kernels", folds=True)), tuple(found))


def _found(library: str) -> str | None:
    """Return the version of an installed library, without importing it."""
    for name in (library, f"{library}-gpu"):  # onnxruntime comes under several names
        with suppress(PackageNotFoundError):
            return version(name)
    return "unknown version" if find_spec(_MODULES.get(library, library)) else None


def _blas() -> str:
    built = np.show_config(mode="dicts")
    blas = (built or {}).get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', '')} {blas.get('version', '')}".strip()


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
