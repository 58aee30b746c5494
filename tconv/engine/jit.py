"""HOW CODE BECOMES CALLABLE: it is found in memory, else on disk, else compiled by LLVM.

An address is a number: nobody can tell who still holds it, or is inside the code. So code is never
unloaded. What bounds the memory is the number of kernels: most sizes are arguments of a kernel, so
programs need dozens of them, of some 20 KB; one that asks for thousands is refused more.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from hashlib import sha256
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tconv.engine.forks import ForkLock
from tconv.engine.objects import symbols, undefined_symbols
from tconv.engine.store import cache_info, clear_cache, read_entry, warn_once, write_entry
from tconv.engine.target import Target
from tconv.errors import UnsupportedError

if TYPE_CHECKING:
    from llvmlite import ir

__all__ = ["assembly", "cache_info", "clear_cache", "load", "undefined_symbols"]

_MOST_KERNELS = 4096  # some 80 MB; each takes two of the 65,530 mappings that Linux allows

_Key = tuple[str, str, Target]
_loaded: dict[_Key, int] = {}
_refused: dict[_Key, str] = {}  # asking again would compile again
_engines: list[tuple[Any, set[str]]] = []  # and the names that each holds
_lock = ForkLock()


def load(name: str, emit: Callable[["ir.Module"], None], target: Target, *, version: str) -> int:
    """Return the address of a function.

    Calls that agree in `name`, `target` and `version` must mean the same code: `emit` is called
    only where it is neither in memory nor on disk.

    Parameters
    ----------
    name : of the function; tells everything its code depends on besides `target` and `version`.
    emit : writes the function into a module, whose triple and data layout are set.
    target : a CPU whose code runs here.
    version : of the generator that `emit` belongs to.

    Returns
    -------
    address : int, valid until the process ends, and in its children after fork.

    Raises
    ------
    UnsupportedError : the code is for another CPU or calls what is not in it, the system forbids
        code made at run time, or the process holds too many kernels.
    """
    key = (name, version, target)
    address = _loaded.get(key)
    if address is None:
        with _lock:
            address, fault = _loaded.get(key), ""
            if address is None:
                address, fault = _load(key, emit)
                _loaded[key] = address
        warn_once(fault)  # this may run the user's code, so not under the lock
    return address


def assembly(name: str, emit: Callable[["ir.Module"], None], target: Target) -> str:
    """Return the assembly of what `emit` writes, for any CPU: to be read, not to be run."""
    with _lock, _module(name, emit, target) as module:
        text: str = _machine(target.triple, target.cpu, target.features).emit_assembly(module)
        return text


# ---- from the disk, else compiled ----------------------------------------------------------------


def _load(key: _Key, emit: Callable[["ir.Module"], None]) -> tuple[int, str]:
    """Return the address, and what is wrong with the entry on disk."""
    name, version, target = key
    if key in _refused:
        raise UnsupportedError(_refused[key])
    if len(_loaded) >= _MOST_KERNELS:
        raise UnsupportedError(
            f"this process holds {_MOST_KERNELS:,} kernels and code is never unloaded; "
            'use fewer shapes of kernel and stride, or method="portable".'
        )
    if not (target.runs_here and target.uses_engine) or _why_no_code():
        reason = _why_no_code() or f"this machine cannot run code for {target.cpu}"
        raise UnsupportedError(f"{reason}; set TCONV_CPU=portable.")
    entry = _entry_of(name, version, target)
    data, fault = read_entry(entry)
    if data is not None:
        try:
            return _linked(name, data, target), ""
        except UnsupportedError:  # its checksum is right, so it was made by another program
            fault = f"{entry}.kernel, which holds something else"
    with _module(name, emit, target) as module:
        data = _machine(target.triple, target.cpu, target.features).emit_object(module)
    try:
        address = _linked(name, data, target)
    except UnsupportedError as error:
        _refused[key] = str(error)
        raise
    write_entry(entry, data)
    return address, fault


def _entry_of(name: str, version: str, target: Target) -> str:
    """Return the key on disk of a function: all that its code follows from."""
    import llvmlite
    from llvmlite import binding

    facts = (
        import_module("tconv").__version__,
        llvmlite.__version__,
        binding.llvm_version_info,
        target.triple,
        target.cpu,
        target.features,
        target.vector_bits,
        target.registers,
        target.has_fma,
        version,
        name,
    )
    return sha256(repr(facts).encode()).hexdigest()


def _linked(name: str, data: bytes, target: Target) -> int:
    """Make the code of an object callable and return the address of one of its functions.

    LLVM ends the process over a symbol that nobody defines, and picks the first of two that are
    defined twice. Neither may come so far.
    """
    try:
        defined, undefined = symbols(data)
    except ValueError as error:
        raise UnsupportedError(f"kernel {name} has an object that is {error}.") from None
    if undefined or name not in defined:
        fault = f"calls {', '.join(sorted(undefined))}" if undefined else "is not in its module"
        raise UnsupportedError(f"kernel {name} {fault}; a kernel must be complete in itself.")
    binding = _llvm()
    engine, names = _engine_without(defined, target)
    names |= defined
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return int(engine.get_function_address(name))


# ---- LLVM ----------------------------------------------------------------------------------------


@cache
def _llvm() -> Any:
    """Return llvmlite's binding to LLVM, which loads in tens of milliseconds."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@cache
def _why_no_code() -> str:
    """Return why this system does not run code that a program makes, or "".

    LLVM would end the process instead.
    """
    try:
        _llvm().check_jit_execution()
    except OSError as error:
        return f"this system forbids code made at run time ({error.strerror})"
    return ""


def _new_machine(triple: str, cpu: str, features: str) -> Any:
    """Return LLVM's generator of code for a CPU."""
    binding = _llvm()
    try:
        target = binding.Target.from_triple(triple)
    except RuntimeError:  # another architecture than this machine's
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
        target = binding.Target.from_triple(triple)
    # opt=1 and no passes over the IR: 2 to 3 times faster to compile than with passes, and the code
    # is as fast, for the emitters write it as it should be. opt=0 is 2 to 3 times slower to run.
    return target.create_target_machine(
        cpu=cpu, features=features, opt=1, codemodel="jitdefault", jit=True
    )


_machine = lru_cache(maxsize=8)(_new_machine)


@contextmanager
def _module(name: str, emit: Callable[["ir.Module"], None], target: Target) -> Iterator[Any]:
    """Give the module that `emit` writes, and release all that LLVM holds for it."""
    from llvmlite import ir

    machine = _machine(target.triple, target.cpu, target.features)
    module = ir.Module(name=name, context=ir.Context())
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    emit(module)
    binding = _llvm()
    with (
        binding.create_context() as context,
        binding.parse_assembly(str(module), context) as parsed,
    ):
        parsed.verify()
        yield parsed


def _engine_without(names: frozenset[str], target: Target) -> tuple[Any, set[str]]:
    """Return an engine that has none of these names, mostly the only one.

    One engine for all kernels loads one in 0.03 ms, an engine each in 0.8 ms (Xeon, 2 cores).
    """
    for engine, held in _engines:
        if not held & names:
            return engine, held
    binding = _llvm()
    machine = _new_machine(target.triple, "", "")  # loads only, for which no features are needed
    module = binding.parse_assembly("")
    engine = binding.create_mcjit_compiler(module, machine)  # which owns the machine from now on
    engine.remove_module(module)  # else it compiles this nothing, in 1 ms, before the first object
    _engines.append((engine, set()))
    return _engines[-1]
