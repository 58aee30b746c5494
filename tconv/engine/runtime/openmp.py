"""WHOSE THREADS WORK: the pool's, or those of an OpenMP runtime that computes here besides.

A runtime's threads look for work for some milliseconds after each of its regions. On a core where
one of them does, a worker of the pool comes late and gets half of the time; the thread that looks
begins at once.
"""

import ctypes
import threading

from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import I32, I64, PTR, VOID, Builder, Function, FunctionType, Module
from tconv.engine.runtime import thread_pool as pool

__all__ = ["OpenMPBackend", "use_backend", "run_job"]

_NAME = "tconv_team"
_MEMBER = Record(pointers=("job", "args", "number"), words=("threads",))
_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_uint


class OpenMPBackend:
    """The threads of a runtime with the interface of GNU's libgomp.

    Parameters
    ----------
    library : loaded, and through which the runtime's functions are found.
    threads : how many the runtime is used to: it ends those that one region does not need.

    Raises
    ------
    AttributeError : the functions are not found.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._parallel = library["GOMP_parallel"]  # unlike an attribute, not shared with others
        self._parallel.restype = None
        self._parallel.argtypes = _ADDRESS, _ADDRESS, _COUNT, _COUNT
        self._number = ctypes.cast(library["omp_get_thread_num"], _ADDRESS).value or 0
        self._threads = threads

    def run(self, job: int, args: int, threads: int, load: pool.Load) -> None:
        """Do what `pool.run` does."""
        words = (ctypes.c_int64 * len(_MEMBER))(
            *_MEMBER.row(job=job, args=args, number=self._number, threads=threads)
        )
        member = load(_NAME, emit)
        self._parallel(member, ctypes.addressof(words), max(threads, self._threads), 0)


class _Lent(threading.local):
    team: OpenMPBackend | None = None


_lent = _Lent()


def use_backend(team: OpenMPBackend | None) -> None:
    """Let a team work for what this thread calls from now on; None is the pool."""
    _lent.team = team


def run_job(job: int, args: int, threads: int, load: pool.Load) -> None:
    """Let up to so many threads take part in a job, as `pool.run` says."""
    team = _lent.team
    if team is None or threads <= 1:
        pool.run(job, args, threads, load)
    else:
        team.run(job, args, threads, load)


def emit(module: Module) -> None:
    """Emit what a member does with its words: ``if (n = number()) < threads: job(args, n)``."""
    function = Function(module, FunctionType(VOID, [PTR]), _NAME)
    code = Code(Builder(function.append_basic_block("entry")))
    words = _MEMBER.load(code, function.args[0])
    n = code.builder.zext(code.call(words["number"], result=I32), I64)
    with code.when(code.is_less(n, words["threads"])):
        code.call(words["job"], words["args"], n)
    code.end()
