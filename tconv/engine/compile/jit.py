"""JIT compilation: functions from memory, else from the disk cache, else compiled by LLVM.

Code is never unloaded, because nobody can tell who still holds an address or runs the code behind
it. A bound on the number of kernels bounds the memory instead: most sizes are arguments of a
kernel, so programs need dozens of kernels, of some 20 KB each; a program that asks for thousands is
refused.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from tconv.engine.compile.disk_cache import read_entry, warn_once, write_entry
from tconv.engine.compile.fingerprint import fingerprint
from tconv.engine.compile.object_file import check_object, symbols
from tconv.engine.target.target import Target, architecture_of
from tconv.errors import UnsupportedError
from tconv.system.fork_lock import ForkLock, importing
from tconv.system.memory import check_addresses

if TYPE_CHECKING:
    from tconv.engine.codegen.llvm import Module

__all__ = [
    "Emit",
    "assembly",
    "find",
    "held",
    "keep",
    "load",
    "load_all",
    "load_kernel",
    "text_of",
]

Emit: TypeAlias = "Callable[[Module], None]"

OPTIONS: dict[str, Any] = {"reloc": "default", "codemodel": "jitdefault", "jit": True}
"""LLVM's options for all code, besides the processor and the level of optimisation."""

# Levels of optimisation, without passes over the IR: with them compilation takes 2 to 3 times as
# long and the code is as fast, for the emitters write it as it should be. Code of level 0 takes a
# fifth of the time to compile, and 2 to 3 times as long to run.
OPTIMISED, BASELINE = 1, 0

_MOST_KERNELS = 12_288  # some 240 MB; each takes two of the 65,530 mappings that Linux allows
# LLVM ends the process where it gets no memory. It takes 30 MiB for the largest plans (x86-64), and
# the C library as much at a time for each new thread.
_COMPILER_BYTES = 2**26

_Key = tuple[str, Target]
_loaded: dict[_Key, int] = {}
_refused: dict[_Key, str] = {}  # why, so that asking again does not compile again
_engines: list[tuple[Any, set[str]]] = []  # of LLVM, and the names that each holds
_lock = ForkLock()


def load(name: str, emit: Emit, target: Target) -> int:
    """Return the address of a function.

    Calls that agree in `name` and `target` must mean the same code: `emit` is called only where it
    is neither in memory nor on disk.

    Parameters
    ----------
    name : of the function; says all that its code depends on besides `target` and the sources.
    emit : writes the function into a module, whose triple and data layout are set.
    target : a processor whose code runs here.

    Returns
    -------
    address : int, valid until the process ends, and in its children after fork.

    Raises
    ------
    UnsupportedError : the code is for another processor or calls a function outside its module,
        the system forbids code made at run time, or the process holds too many kernels.
    """
    address = _loaded.get((name, target))
    return load_all({name: emit}, target)[name] if address is None else address


def load_all(emits: Mapping[str, Emit], target: Target) -> dict[str, int]:
    """Return the addresses of functions by name; new ones are compiled as one module.

    A module takes LLVM a millisecond besides its content, and as long to load.
    """
    fault = ""
    if not all((name, target) in _loaded for name in emits):
        with _lock:
            new = {n: emit for n, emit in emits.items() if (n, target) not in _loaded}
            if new:
                fault = _load(new, target)
        warn_once(fault)  # outside the lock, because a warning may run the user's code
    return {name: _loaded[name, target] for name in emits}


def load_kernel(name: str, emit: Any, *, dtype: str, target: Target) -> int:
    """Return the address of a kernel for one element type, as `load` does."""
    full = f"{name}_{dtype}"
    return load(full, partial(_write, emit, full, dtype, target), target)


def _write(emit: Any, name: str, dtype: str, target: Target, module: "Module") -> None:
    with importing:
        from tconv.engine.codegen.code import write

    write(emit, name, dtype, target, module)


def assembly(name: str, emit: Emit, target: Target) -> str:
    """Return the assembly of a function for any processor, for reading only."""
    with _lock, _parsed(text_of([emit], target)) as module:
        text: str = _machine(target.triple, target.cpu, target.features).emit_assembly(module)
        return text


# ---- disk cache, else compiler -------------------------------------------------------------------


def _load(emits: Mapping[str, Emit], target: Target) -> str:
    """Make new functions callable; return what is wrong with an entry of the disk cache."""
    found, fault = _found(emits, target)
    missing = {name: emit for name, emit in emits.items() if name not in found}
    if missing:
        _compiled(missing, target)
    return fault


def find(names: Collection[str], target: Target) -> dict[str, int]:
    """Return the addresses of functions in memory or in the disk cache."""
    with _lock:
        new = [name for name in names if (name, target) not in _loaded]
        fault = _found(new, target)[1] if new else ""
    warn_once(fault)
    return held(names, target)


def held(names: Iterable[str], target: Target) -> dict[str, int]:
    """Return the addresses of functions in memory."""
    keys = {name: (name, target) for name in names}
    return {name: _loaded[key] for name, key in keys.items() if key in _loaded}


def _found(names: Collection[str], target: Target) -> tuple[dict[str, int], str]:
    """Load functions from the disk cache; return addresses, and what is wrong with an entry."""
    for name in names:
        if (name, target) in _refused:
            raise UnsupportedError(_refused[name, target])
    if len(_loaded) + len(names) > _MOST_KERNELS:
        raise UnsupportedError(
            f"this process holds {len(_loaded):,} kernels and code is never unloaded; "
            "use fewer shapes of kernel and stride, or set TCONV_CPU=portable."
        )
    if not (target.runs_here and target.uses_engine):
        fault = f"this machine cannot run code for {target.cpu}"
        raise UnsupportedError(f"{fault}; set TCONV_CPU=portable.")
    found: dict[str, int] = {}
    first_fault = ""
    for name in names:
        if name not in found:  # an entry has all functions of a module
            entry = _entry_of(name, target)
            data, fault = read_entry(entry)
            if data is not None:
                try:
                    found |= _linked([name], data, target)
                except (UnsupportedError, RuntimeError):  # its checksum is right, so another
                    _check_code()  # program made it, unless no code can be loaded at all
                    check_addresses(_COMPILER_BYTES)
                    fault = f"{entry}.kernel, which holds something else"
            first_fault = first_fault or fault
    _hold(found, target)
    return found, first_fault


def _hold(found: Mapping[str, int], target: Target) -> None:
    for name, address in found.items():
        _loaded.setdefault((name, target), address)


def _compiled(emits: Mapping[str, Emit], target: Target) -> None:
    """Compile functions as one module and keep it in the disk cache."""
    _check_code()
    try:
        keep(list(emits), text_of(emits.values(), target), target)
    except UnsupportedError as error:
        if len(emits) > 1:  # find the one that fails
            for name, emit in emits.items():
                _compiled({name: emit}, target)
        _refused[next(iter(emits)), target] = str(error)
        raise


def keep(
    names: Sequence[str], text: str, target: Target, *, opt: int = OPTIMISED
) -> dict[str, int]:
    """Compile a module, write it to the disk cache for each function, and return addresses."""
    with _lock:
        check_addresses(_COMPILER_BYTES)
        with _parsed(text) as module:
            machine = _machine(target.triple, target.cpu, target.features, opt)
            data = machine.emit_object(module)
        found = _linked(names, data, target)
        for name in names:
            write_entry(_entry_of(name, target), data)
        _hold(found, target)
        return found


def _entry_of(name: str, target: Target) -> str:
    """Return a function's key in the disk cache: a hash of all that its code follows from."""
    found = _facts(target).copy()
    found.update(name.encode())
    key: str = found.hexdigest()
    return key


@lru_cache(maxsize=64)
def _facts(target: Target) -> Any:
    """Return a hash of all that the code of every function follows from, to be continued."""
    with importing:
        import llvmlite
        from llvmlite import binding

    versions = llvmlite.__version__, binding.llvm_version_info
    of_target = (target.triple, target.cpu, target.features, target.isa)
    facts = fingerprint(), versions, of_target, OPTIONS, OPTIMISED, BASELINE
    return sha256(repr(facts).encode())


def _linked(names: Sequence[str], data: bytes, target: Target) -> dict[str, int]:
    """Make the code of an object callable; return the addresses of all its functions.

    It must define the named ones. LLVM ends the process over an undefined symbol, and takes the
    first of two that have the same name, so both are refused before.
    """
    _check_code()
    try:
        is_apple = "apple" in target.triple or "darwin" in target.triple
        check_object(data, architecture_of(target.triple), is_apple=is_apple)
        defined, undefined = symbols(data)
    except ValueError as error:
        raise UnsupportedError(f"kernel {names[0]} has an object that is {error}.") from None
    absent = [name for name in names if name not in defined]
    if undefined or absent:
        fault = f"calls {', '.join(sorted(undefined))}" if undefined else "is not in its module"
        name = names[0] if undefined else absent[0]
        raise UnsupportedError(f"kernel {name} {fault}; a kernel must be complete in itself.")
    check_addresses(_COMPILER_BYTES)
    binding = _llvm()
    engine, held = _engine_without(defined, target)
    held |= defined
    engine.add_object_file(binding.object_file.ObjectFileRef.from_data(data))
    engine.finalize_object()
    found = {name: int(engine.get_function_address(name)) for name in defined}
    if not all(map(found.get, names)):
        raise UnsupportedError(f"LLVM does not find kernel {names[0]} in what it has loaded.")
    return found


# ---- LLVM ----------------------------------------------------------------------------------------


@cache
def _llvm() -> Any:
    """Return llvmlite's binding to LLVM, initialised."""
    with importing:
        from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@cache
def why_no_code() -> str:
    """Return why this system runs no code made at run time, or ""."""
    try:
        _llvm().check_jit_execution()
    except OSError as error:
        return f"this system forbids code made at run time ({error.strerror})"
    return ""


def _check_code() -> None:
    """Raise where LLVM would end the process."""
    reason = why_no_code()
    if reason:
        raise UnsupportedError(f"{reason}; set TCONV_CPU=portable.")


def _new_machine(triple: str, cpu: str, features: str, opt: int = OPTIMISED) -> Any:
    """Return LLVM's code generator for a processor."""
    binding = _llvm()
    try:
        target = binding.Target.from_triple(triple)
    except RuntimeError:  # another architecture than this machine's
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
        target = binding.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=opt, **OPTIONS)


_machine = lru_cache(maxsize=8)(_new_machine)


def text_of(emits: Iterable[Emit], target: Target) -> str:
    """Return the text of a module of functions."""
    with importing:  # a process whose kernels are on disk emits none
        from tconv.engine.codegen.llvm import Module

    with _lock:
        machine = _machine(target.triple, target.cpu, target.features)
        module = Module(machine.triple, str(machine.target_data))
    for emit in emits:
        emit(module)
    return str(module)


@contextmanager
def _parsed(text: str) -> Iterator[Any]:
    """Give LLVM's own module, and free its memory afterwards."""
    binding = _llvm()
    with (
        binding.create_context() as context,
        binding.parse_assembly(text, context) as parsed,
    ):
        parsed.verify()
        yield parsed


def _engine_without(names: frozenset[str], target: Target) -> tuple[Any, set[str]]:
    """Return an engine without these names, and its names; mostly there is only one.

    One engine for all kernels loads each in 0.03 ms, one for each kernel in 0.8 ms (Xeon, 2 cores).
    """
    for engine, held in _engines:
        if not held & names:
            return engine, held
    binding = _llvm()
    machine = _new_machine(target.triple, "", "")  # loads only, for which no features are needed
    module = binding.parse_assembly("")
    engine = binding.create_mcjit_compiler(module, machine)  # owns the machine
    engine.remove_module(module)  # else it compiles the empty module, in 1 ms
    _engines.append((engine, set()))
    return _engines[-1]
