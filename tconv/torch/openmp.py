"""WHOSE THREADS WORK for tensors: PyTorch's own, where they are those of an OpenMP runtime."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import torch

from tconv.engine.runtime.openmp import OpenMPBackend, use_backend

__all__ = ["working"]

_is_child = False
_NOBODY = nullcontext()  # is lent: who calls works, and the pool's threads


def working(threads: int) -> AbstractContextManager[None]:
    """Let PyTorch's threads work for what is called meanwhile, as for its own operations.

    >>> with working(2):
    ...     tconv.conv_transpose(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2)
    array([[[1., 1., 2., 1., 1.]]])
    """
    return _NOBODY if _is_child or threads == 1 else _lent(threads)


@contextmanager
def _lent(threads: int) -> Iterator[None]:
    use_backend(_team(threads))
    try:
        yield
    finally:
        use_backend(None)


@cache
def _team(threads: int) -> OpenMPBackend | None:
    """PyTorch's threads, so many of them; None if it has others."""
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    library = Path(torch.__file__).with_name("lib") / "libtorch_cpu.so"
    try:
        return OpenMPBackend(
            ctypes.CDLL(str(library)), threads
        )  # which is loaded, with its runtime
    except (OSError, AttributeError):
        return None


def _leave() -> None:
    """Do without them in the child of a fork: they stay behind, and the runtime waits for them."""
    global _is_child
    _is_child = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)
