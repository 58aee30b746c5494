"""State of the engine: whether it runs, why not, and by which compiler."""

from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from tconv.engine.compile.jit import why_no_code
from tconv.engine.target.target import cache_folder, target
from tconv.errors import TConvError
from tconv.system.fork_lock import importing

__all__ = ["EngineState", "engine_state"]


class EngineState(NamedTuple):
    """What `tconv info` says of the engine; None is what does not apply."""

    reason: str | None  # why the portable path computes; None if the engine does
    instruction_set: str | None
    llvmlite: str | None
    llvm: str | None
    cache: str  # the folder of kernels, or why there is none


def engine_state() -> EngineState:
    """Return whether the engine runs here.

    >>> state = engine_state()
    >>> (state.reason is None) == (state.instruction_set is not None)
    True
    """
    reason, name, llvm = None, None, None
    try:
        found = target()
        if found.uses_engine:
            with importing:
                from llvmlite import binding

            llvm = ".".join(map(str, binding.llvm_version_info))
            reason = why_no_code() or None
            name = None if reason else found.isa.name
        else:
            reason = "TCONV_CPU=portable"
    except TConvError as error:
        reason = str(error)
    try:
        llvmlite = version("llvmlite")
    except PackageNotFoundError:
        llvmlite = None
    return EngineState(reason, name, llvmlite, llvm, str(cache_folder()))
