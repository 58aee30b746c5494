"""The target CPU: instruction set, caches and cores, as the host and the environment give them.

Only this file reads the environment variables TCONV_CPU, TCONV_THREADS and TCONV_CACHE.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tconv.engine.target import isa
from tconv.engine.target.isa import Architecture, InstructionSet
from tconv.errors import ParameterError, UnsupportedError
from tconv.geometry.arguments import MOST_THREADS
from tconv.system.fork_lock import ForkLock, importing
from tconv.system.memory import check_addresses
from tconv.system.topology import DEFAULT_CACHE_BYTES, cache_bytes, core_count

__all__ = [
    "Target",
    "architecture_of",
    "architecture_row",
    "cache_folder",
    "named_target",
    "read_target",
    "target",
]

_LLVM_BYTES = 2**28  # of addresses: LLVM's library takes 160 MiB, and what it compiles 64
_loading = ForkLock()


# x86 features and those that each implies: LLVM switches the implied ones on with it, and it off
# with them. Only features that kernels use are listed, the implied ones first (LLVM,
# lib/Target/X86/X86.td).
_IMPLIED = {
    "ssse3": ("sse3",),
    "sse4.1": ("ssse3",),
    "sse4.2": ("sse4.1",),
    "avx": ("sse4.2",),
    "avx2": ("avx",),
    "fma": ("avx",),
    "f16c": ("avx",),
    "avx512f": ("avx2", "fma", "f16c"),
    "avx512vl": ("avx512f",),
    "avx512dq": ("avx512f",),
    "avx512bw": ("avx512f",),
}

# CPUs that multiply and load 512 bits in two steps, their units being half as wide (AMD, Software
# Optimization Guide for the Zen 4 Microarchitecture, 57647).
_HALF_WIDE = frozenset(("znver4",))

# CPUs that may be named: LLVM ends the process over an x86 name that it does not know. Each has the
# name of its instruction set, and the features that other CPUs of this set lack.
CPUS = {
    "x86-64": ("sse2", ""),
    "x86-64-v2": ("sse2", "sse4.2 popcnt"),
    "x86-64-v3": ("avx2", "bmi2 f16c"),
    "haswell": ("avx2", "bmi2 f16c"),
    "skylake": ("avx2", "bmi2 f16c adx"),
    "znver3": ("avx2", "bmi2 f16c vaes"),
    "x86-64-v4": ("avx512", "bmi2 f16c"),
    "skylake-avx512": ("avx512", "bmi2 f16c adx"),
    "icelake-server": ("avx512", "bmi2 f16c avx512vbmi2 avx512vnni"),
    "znver4": ("avx512", "bmi2 f16c avx512vbmi2 avx512bf16"),
    "znver5": ("avx512", "bmi2 f16c avx512vbmi2 avx512bf16"),
    "sapphirerapids": ("avx512", "bmi2 f16c avx512bf16 avx512fp16"),
    "cortex-a72": ("neon", ""),
    "neoverse-n1": ("neon", "lse rcpc fullfp16"),
    "neoverse-v1": ("neon", "lse rcpc fullfp16 bf16 sve"),
    "apple-m1": ("neon", "lse rcpc fullfp16 flagm sha3"),
}


@dataclass(frozen=True)
class Target:
    """The CPU that kernels are compiled for: part of the key of every plan and kernel."""

    triple: str
    cpu: str
    features: str  # as LLVM reads them: "+avx2,-avx512f", those that are switched off last
    isa: InstructionSet = field(hash=False)  # which mostly follows from the features
    l1_bytes: int  # of data, per core
    l2_bytes: int  # per core
    l3_bytes: int  # in all
    cores: int  # that this process may keep busy
    threads: int  # of a call that does not say how many
    runs_here: bool = True
    uses_engine: bool = True  # False: TCONV_CPU=portable

    @property
    def vector_bits(self) -> int:
        """Bits of a vector register."""
        return self.isa.vector_bits

    @property
    def has_fma(self) -> bool:
        """Whether an instruction multiplies and adds, rounding once."""
        return self.isa.has_fma

    @property
    def converts_float16(self) -> bool:
        """Whether instructions convert float16 to float32 and back."""
        needed, features = self.isa.float16_feature, self.features.split(",")
        if needed is None or f"+{needed}" in features:
            return True
        is_implied = needed in CPUS.get(self.cpu, ("", ""))[1].split()
        return is_implied and f"-{needed}" not in features

    @property
    def steps(self) -> int:
        """Steps in which the CPU multiplies, adds or loads a vector."""
        return 2 if self.isa.vector_bits == 512 and self.cpu in _HALF_WIDE else 1

    def __str__(self) -> str:
        """Describe the CPU on one line, without its hundred features."""
        fma = "FMA" if self.has_fma else "no FMA"
        caches = " + ".join(
            f"{size // 1024:,} KiB" for size in (self.l1_bytes, self.l2_bytes, self.l3_bytes)
        )
        return (
            f"{self.cpu}: {self.isa.name}, {self.isa.registers} registers of "
            f"{self.isa.vector_bits} bits, {fma}, caches {caches}, "
            f"{self.cores} cores, {self.threads} threads"
        )


# ---- which CPU -----------------------------------------------------------------------------------


@cache
def target() -> Target:
    """Return the CPU of this machine, or the one that the environment names in its place.

    Raises
    ------
    ParameterError : TCONV_CPU or TCONV_THREADS has an impossible value.

    >>> target().vector_bits in (128, 256, 512)
    True
    """
    return read_target(os.environ)


def read_target(environment: Mapping[str, str]) -> Target:
    """Return the target under a given environment.

    >>> read_target({"TCONV_CPU": "portable", "TCONV_THREADS": "3"}).threads
    3
    """
    name = environment.get("TCONV_CPU", "").strip()
    threads = _threads(environment.get("TCONV_THREADS", "").strip())
    if name == "portable":
        return _from_row(isa.INSTRUCTION_SETS[-1], "", name, "", threads, uses_engine=False)
    host = _host()
    if name in ("", host.cpu):
        return target_of(host.triple, host.cpu, host.features, threads)
    if name in CPUS:
        named = named_target(name, threads)
        if named.runs_here:
            return named
    possible = [cpu for cpu in CPUS if named_target(cpu).runs_here]
    raise ParameterError(
        f"TCONV_CPU={name!r} must name a CPU whose instructions this machine has; unset it or set "
        f"one of {', '.join(dict.fromkeys(['portable', host.cpu, *possible]))}."
    )


def target_of(
    triple: str, cpu: str, features: Mapping[str, bool], threads: int | None = None
) -> Target:
    """Return the target that LLVM describes so, with the caches and cores of this machine.

    The name of the CPU is only LLVM's guess for a model it does not know. That does no harm: every
    feature is switched on or off by what the CPU and the operating system report.

    >>> target_of("x86_64-pc-linux", "generic", {"avx2": True, "fma": True}).vector_bits
    256
    """
    architecture, features = architecture_of(triple), _usable(features)
    row = next(
        row
        for row in isa.INSTRUCTION_SETS
        if row.architecture.name in ("", architecture) and all(map(features.get, row.features))
    )
    return _from_row(row, triple, cpu, _flags(features, "+-"), threads)


def architecture_of(triple: str) -> str:
    """Return the first part of LLVM's triple, under one name for each architecture.

    >>> architecture_of("arm64-apple-darwin23"), architecture_of("riscv64-unknown-linux-gnu")
    ('aarch64', 'riscv64')
    """
    first = triple.partition("-")[0].lower()
    return {"amd64": "x86_64", "x86_64h": "x86_64", "arm64": "aarch64"}.get(first, first)


def architecture_row(triple: str) -> Architecture:
    """Return what every CPU of a triple's architecture has."""
    name = architecture_of(triple)
    return next(row for row in isa.ARCHITECTURES if row.name in ("", name))


def _usable(features: Mapping[str, bool]) -> dict[str, bool]:
    """Switch off features that cannot be used: a hypervisor may hide any one and show all others.

    >>> _usable({"avx2": False, "avx512f": True, "amx-tile": True, "sse3": True})
    {'avx2': False, 'avx512f': False, 'amx-tile': False, 'sse3': True}
    """
    found = dict(features)
    for name, implied in _IMPLIED.items():
        if name in found:
            found[name] = found[name] and all(found.get(each, True) for each in implied)
    # Linux grants the tile registers of AMX only to a process that asks for them.
    return {name: has and not name.startswith("amx") for name, has in found.items()}


def _flags(features: Mapping[str, bool], signs: str) -> str:
    """Write features as LLVM reads them, those with the first of the signs first.

    LLVM reads from left to right. A feature switches on those that it implies ("+vaes" switches on
    avx2), and one that is switched off also switches off those that imply it. So the features that
    this machine lacks come last.

    >>> _flags({"vaes": True, "avx2": False, "aes": True}, "+-")
    '+aes,+vaes,-avx2'
    """
    return ",".join(
        f"{sign}{name}"
        for sign in signs
        for name, has in sorted(features.items())
        if has == (sign == "+")
    )


def named_target(cpu: str, threads: int | None = None) -> Target:
    """Return a CPU by LLVM's name of it, also one whose code cannot run on this machine.

    >>> named_target("apple-m1").isa.registers, named_target("skylake-avx512").vector_bits
    (32, 512)
    """
    if cpu not in CPUS:
        raise ParameterError(
            f"cpu={cpu!r} must be one that is known; pass one of {', '.join(CPUS)}."
        )
    try:
        host = _host()
    except UnsupportedError:  # kernels for this CPU can still be described
        host = _Host("", "", {})
    instruction_set, needs = CPUS[cpu]
    row = next(row for row in isa.INSTRUCTION_SETS if row.name == instruction_set)
    architecture, features = row.architecture.name, _usable(host.features)
    is_native = architecture_of(host.triple) == architecture
    if is_native and all(map(features.get, {*row.features, *needs.split()})):
        # The name implies more features than these; those that this machine lacks are switched off.
        return _from_row(row, host.triple, cpu, _flags(features, "-"), threads)
    system = "apple-macosx" if cpu.startswith("apple") else "unknown-linux-gnu"
    return _from_row(row, f"{architecture}-{system}", cpu, "", threads, runs_here=False)


def _from_row(
    row: InstructionSet,
    triple: str,
    cpu: str,
    features: str,
    threads: int | None,
    *,
    runs_here: bool = True,
    uses_engine: bool = True,
) -> Target:
    """Return the target with one instruction set, and with this machine's cores."""
    cores = core_count()
    return Target(
        triple,
        cpu,
        features,
        row,
        *(cache_bytes() if runs_here else DEFAULT_CACHE_BYTES),
        cores,
        threads or cores,
        runs_here,
        uses_engine,
    )


class _Host(NamedTuple):
    """The host, as LLVM describes it."""

    triple: str
    cpu: str
    features: dict[str, bool]


def _host() -> _Host:
    """Return the host; raise where llvmlite does not load."""
    found = _host_or_reason()
    if isinstance(found, str):
        raise UnsupportedError(found)
    return found


@cache
def _host_or_reason() -> _Host | str:
    """Ask LLVM about the host; return why there is no answer where llvmlite does not load."""
    with _loading:
        if "llvmlite.binding" not in sys.modules:
            check_addresses(_LLVM_BYTES)
        try:
            with importing:
                from llvmlite import binding
        except (ImportError, OSError) as error:
            return f"llvmlite does not load ({error}); install llvmlite, or set TCONV_CPU=portable."

        return _Host(
            binding.get_process_triple(),
            binding.get_host_cpu_name(),
            dict(binding.get_host_cpu_features()),
        )


# ---- other settings ------------------------------------------------------------------------------


def _threads(text: str) -> int | None:
    """Read TCONV_THREADS; None is one thread per core."""
    if not text:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MOST_THREADS:
        return int(text)
    raise ParameterError(
        f"TCONV_THREADS={text!r} must be an integer from 1 to {MOST_THREADS}; "
        f"unset it to use all {core_count()} cores."
    )


def cache_folder(
    environment: Mapping[str, str] | None = None, platform: str = sys.platform
) -> Path | str:
    """Return the folder of the kernel cache, or the reason why there is none.

    >>> cache_folder({"TCONV_CACHE": "off"})
    'TCONV_CACHE=off'
    """
    environment = os.environ if environment is None else environment
    wanted = environment.get("TCONV_CACHE", "").strip()
    if wanted.lower() == "off":
        return f"TCONV_CACHE={wanted}"
    try:
        if wanted:
            return Path(wanted).expanduser().absolute()
        if platform == "win32":
            return _absolute(environment.get("LOCALAPPDATA", "")) / "tconv"
        if platform != "darwin":
            with suppress(RuntimeError):  # its specification: ignore a relative one
                return _absolute(environment.get("XDG_CACHE_HOME", "")) / "tconv"
        home = _absolute(environment.get("HOME", "") or str(Path.home()))
        return home / ("Library/Caches" if platform == "darwin" else ".cache") / "tconv"
    except (RuntimeError, OSError):
        return "this user has no home folder"


def _absolute(path: str) -> Path:
    """Return a path; RuntimeError if it is not absolute."""
    if not Path(path).is_absolute():
        raise RuntimeError
    return Path(path)
