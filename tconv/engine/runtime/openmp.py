"""OpenMP backend: the threads of an OpenMP runtime run native jobs in place of the thread pool.

A host that computes with OpenMP keeps its threads spinning for some milliseconds after each
parallel region. On a core where one of them spins, a worker of the thread pool starts late and gets
half of the time; the spinning thread starts at once.
"""

import ctypes

from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import I32, I64, PTR, VOID, Builder, Function, FunctionType, Module
from tconv.engine.runtime.thread_pool import Load

__all__ = ["OpenMPBackend"]

_NAME = "tconv_openmp_region"
_REGION = Record(pointers=("job", "args", "number"), words=("threads",))
_ADDRESS, _COUNT = ctypes.c_void_p, ctypes.c_uint


class OpenMPBackend:
    """The threads of an OpenMP runtime with the interface of GNU's libgomp.

    Parameters
    ----------
    library : a loaded library that finds the runtime's functions.
    threads : threads that the host's own regions have; a smaller region would end some of them.

    Raises
    ------
    AttributeError : the library does not find the functions.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._parallel = library["GOMP_parallel"]  # unlike an attribute, not shared with others
        self._parallel.restype = None
        self._parallel.argtypes = _ADDRESS, _ADDRESS, _COUNT, _COUNT
        self._number = ctypes.cast(library["omp_get_thread_num"], _ADDRESS).value or 0
        self._threads = threads

    def run(self, job: int, args: int, threads: int, load: Load) -> None:
        """Run a job as `thread_pool.run` does."""
        words = (ctypes.c_int64 * len(_REGION))(
            *_REGION.row(job=job, args=args, number=self._number, threads=threads)
        )
        region = load(_NAME, emit)
        self._parallel(region, ctypes.addressof(words), max(threads, self._threads), 0)


def emit(module: Module) -> None:
    """Emit the body of a parallel region: ``if (n = number()) < threads: job(args, n)``."""
    function = Function(module, FunctionType(VOID, [PTR]), _NAME)
    code = Code(Builder(function.append_basic_block("entry")))
    words = _REGION.load(code, function.args[0])
    n = code.builder.zext(code.call(words["number"], result=I32), I64)
    with code.when(code.is_less(n, words["threads"])):
        code.call(words["job"], words["args"], n)
    code.end()
