"""PyTorch's threads, lent to the engine for calls with tensors."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import torch

from tconv.engine import OpenMPBackend, use_backend

__all__ = ["torch_threads"]

_is_child = False  # of a fork
_OWN_POOL = nullcontext()  # the calling thread and those of the engine's pool work


def torch_threads(threads: int) -> AbstractContextManager[None]:
    """Let PyTorch's threads run the engine's calls in this context, as its own operations.

    >>> with torch_threads(2):
    ...     tconv.conv_transpose(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2)
    array([[[1., 1., 2., 1., 1.]]])
    """
    return _OWN_POOL if _is_child or threads == 1 else _lend_threads(threads)


@contextmanager
def _lend_threads(threads: int) -> Iterator[None]:
    use_backend(_team(threads))
    try:
        yield
    finally:
        use_backend(None)


@cache
def _team(threads: int) -> OpenMPBackend | None:
    """That many of PyTorch's threads; None if they are not an OpenMP runtime's."""
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    library = Path(torch.__file__).with_name("lib") / "libtorch_cpu.so"
    try:
        return OpenMPBackend(ctypes.CDLL(str(library)), threads)  # already loaded, with its runtime
    except (OSError, AttributeError):
        return None


def _leave() -> None:
    """Use them no longer in a forked child: they are lost, and the runtime would wait for them."""
    global _is_child
    _is_child = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)
