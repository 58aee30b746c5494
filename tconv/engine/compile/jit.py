"""HOW CODE BECOMES CALLABLE: it is found in memory, else on disk, else compiled by LLVM.

An address is a number: nobody can tell who still holds it, or is inside the code. So code is never
unloaded. What bounds the memory is the number of kernels: most sizes are arguments of a kernel, so
programs need dozens of them, of some 20 KB; one that asks for thousands is refused more.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from hashlib import sha256
from typing import Any

from tconv.engine.codegen.code import write
from tconv.engine.codegen.llvm import Module
from tconv.engine.compile.disk_cache import (
    cache_info,
    clear_cache,
    read_entry,
    warn_once,
    write_entry,
)
from tconv.engine.compile.fingerprint import fingerprint
from tconv.engine.compile.object_file import check_object, symbols, undefined_symbols
from tconv.engine.target.target import Target, architecture_of
from tconv.errors import UnsupportedError
from tconv.system.fork_lock import ForkLock, importing
from tconv.system.memory import check_addresses

__all__ = [
    "Emit",
    "assembly",
    "cache_info",
    "clear_cache",
    "find",
    "held",
    "keep",
    "load",
    "load_all",
    "load_kernel",
    "text_of",
    "undefined_symbols",
]

Emit = Callable[[Module], None]

OPTIONS: dict[str, Any] = {"reloc": "default", "codemodel": "jitdefault", "jit": True}
"""What LLVM is told of every module, besides its processor and level of optimisation."""

# No passes over the IR: 2 to 3 times faster to compile than with them, and the code is as fast, for
# the emitters write it as it should be. BASELINE code takes 2 to 3 times as long to run.
OPTIMISED, BASELINE = 1, 0

_MOST_KERNELS = 4096  # some 80 MB; each takes two of the 65,530 mappings that Linux allows
# LLVM ends the process where it gets no memory. 30 MiB for the largest plans (x86-64), and as much
# as the C library takes at a time for a thread that is new to it.
_COMPILER_BYTES = 2**26

_Key = tuple[str, Target]
_loaded: dict[_Key, int] = {}
_refused: dict[_Key, str] = {}  # asking again would compile again
_engines: list[tuple[Any, set[str]]] = []  # and the names that each holds
_lock = ForkLock()


def load(name: str, emit: Emit, target: Target) -> int:
    """Return the address of a function.

    Calls that agree in `name` and `target` must mean the same code: `emit` is called only where it
    is neither in memory nor on disk.

    Parameters
    ----------
    name : of the function; tells everything its code depends on besides `target` and the sources.
    emit : writes the function into a module, whose triple and data layout are set.
    target : a CPU whose code runs here.

    Returns
    -------
    address : int, valid until the process ends, and in its children after fork.

    Raises
    ------
    UnsupportedError : the code is for another CPU or calls what is not in it, the system forbids
        code made at run time, or the process holds too many kernels.
    """
    address = _loaded.get((name, target))
    return load_all({name: emit}, target)[name] if address is None else address


def load_all(emits: Mapping[str, Emit], target: Target) -> dict[str, int]:
    """Return the addresses of functions by name; those that must be compiled are so together.

    LLVM takes a millisecond for a module, besides what is in it, and as long to load one.
    """
    fault = ""
    if not all((name, target) in _loaded for name in emits):
        with _lock:
            new = {n: emit for n, emit in emits.items() if (n, target) not in _loaded}
            if new:
                fault = _load(new, target)
        warn_once(fault)  # this may run the user's code, so not under the lock
    return {name: _loaded[name, target] for name in emits}


def assembly(name: str, emit: Emit, target: Target) -> str:
    """Return the assembly of what `emit` writes, for any CPU: to be read, not to be run."""
    with _lock, _parsed(text_of([emit], target)) as module:
        text: str = _machine(target.triple, target.cpu, target.features).emit_assembly(module)
        return text


# ---- from the disk, else compiled ----------------------------------------------------------------


def _load(emits: Mapping[str, Emit], target: Target) -> str:
    """Make functions callable that are not yet; return what is wrong with an entry on disk."""
    found, fault = _found(emits, target)
    missing = {name: emit for name, emit in emits.items() if name not in found}
    if missing:
        _compiled(missing, target)
    return fault


def find(names: Collection[str], target: Target) -> dict[str, int]:
    """Return the addresses of those functions that need not be compiled."""
    with _lock:
        new = [name for name in names if (name, target) not in _loaded]
        fault = _found(new, target)[1] if new else ""
    warn_once(fault)
    return held(names, target)


def held(names: Iterable[str], target: Target) -> dict[str, int]:
    """Return the addresses of those functions that are in memory."""
    keys = {name: (name, target) for name in names}
    return {name: _loaded[key] for name, key in keys.items() if key in _loaded}


def _found(names: Collection[str], target: Target) -> tuple[dict[str, int], str]:
    """Take functions from the disk; return their addresses, and what is wrong with an entry."""
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
        if name not in found:  # an entry has all that was compiled together
            entry = _entry_of(name, target)
            data, fault = read_entry(entry)
            if data is not None:
                try:
                    found |= _linked([name], data, target)
                except (UnsupportedError, RuntimeError):  # its checksum is right: another program
                    _check_code()  # has made it, unless no code can be loaded at all
                    check_addresses(_COMPILER_BYTES)
                    fault = f"{entry}.kernel, which holds something else"
            first_fault = first_fault or fault
    _hold(found, target)
    return found, first_fault


def _hold(found: Mapping[str, int], target: Target) -> None:
    for name, address in found.items():
        _loaded.setdefault((name, target), address)


def _compiled(emits: Mapping[str, Emit], target: Target) -> None:
    """Compile functions together and keep the object for each of them, on disk."""
    _check_code()
    try:
        keep(list(emits), text_of(emits.values(), target), target)
    except UnsupportedError as error:
        if len(emits) > 1:  # which of them is it?
            for name, emit in emits.items():
                _compiled({name: emit}, target)
        _refused[next(iter(emits)), target] = str(error)
        raise


def keep(
    names: Sequence[str], text: str, target: Target, *, opt: int = OPTIMISED
) -> dict[str, int]:
    """Compile a module, keep it on disk for each of these functions, and return their addresses.

    With ``opt=0`` that takes a fifth of the time, and the code two to three times as long.
    """
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
    """Return the key on disk of a function: all that its code follows from."""
    found = _facts(target).copy()
    found.update(name.encode())
    key: str = found.hexdigest()
    return key


@lru_cache(maxsize=64)
def _facts(target: Target) -> Any:
    """Return what the code of all functions follows from, as the beginning of a checksum."""
    with importing:
        import llvmlite
        from llvmlite import binding

    versions = llvmlite.__version__, binding.llvm_version_info
    of_target = (
        *(target.triple, target.cpu, target.features, target.instruction_set),
        *(target.vector_bits, target.registers, target.has_fma),
    )
    facts = fingerprint(), versions, of_target, OPTIONS, OPTIMISED, BASELINE
    return sha256(repr(facts).encode())


def _linked(names: Sequence[str], data: bytes, target: Target) -> dict[str, int]:
    """Make the code of an object callable; return the addresses of all its functions.

    It must have those that are named. LLVM ends the process over a symbol that nobody defines, and
    picks the first of two that are defined twice. Neither may come so far.
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
    """Return llvmlite's binding to LLVM, which loads in tens of milliseconds."""
    with importing:
        from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@cache
def _why_no_code() -> str:
    """Return why this system does not run code that a program makes, or ""."""
    try:
        _llvm().check_jit_execution()
    except OSError as error:
        return f"this system forbids code made at run time ({error.strerror})"
    return ""


def _check_code() -> None:
    """Refuse to go on where LLVM would end the process."""
    reason = _why_no_code()
    if reason:
        raise UnsupportedError(f"{reason}; set TCONV_CPU=portable.")


def _new_machine(triple: str, cpu: str, features: str, opt: int = OPTIMISED) -> Any:
    """Return LLVM's generator of code for a CPU."""
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
    """Return the module that functions are written to."""
    with _lock:
        machine = _machine(target.triple, target.cpu, target.features)
        module = Module(machine.triple, str(machine.target_data))
    for emit in emits:
        emit(module)
    return str(module)


@contextmanager
def _parsed(text: str) -> Iterator[Any]:
    """Give a module as LLVM has it, and release all that it holds for it."""
    binding = _llvm()
    with (
        binding.create_context() as context,
        binding.parse_assembly(text, context) as parsed,
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


def load_kernel(name: str, emit: Any, *, dtype: str, target: Target) -> int:
    """Return the address of a kernel for one type, which `emit` writes, as `load` does."""
    full = f"{name}_{dtype}"
    return load(full, partial(write, emit, full, dtype, target), target)
