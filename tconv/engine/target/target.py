"""WHAT THIS CPU IS: its vectors, caches and cores, and what the environment says about them.

The variables TCONV_CPU, TCONV_THREADS and TCONV_CACHE are read here and nowhere else.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tconv.errors import ParameterError
from tconv.geometry.arguments import MOST_THREADS
from tconv.system.fork_lock import ForkLock, importing
from tconv.system.memory import check_addresses
from tconv.system.topology import USUAL_CACHE_BYTES, cache_bytes, core_count

__all__ = [
    "Target",
    "architecture_of",
    "cache_folder",
    "named_target",
    "read_target",
    "target",
]

_LLVM_BYTES = 2**28  # of addresses: its library takes 160 MiB, and what it compiles 64
_loading = ForkLock()


class InstructionSet(NamedTuple):
    """One row: what a set of vector instructions needs and gives."""

    name: str
    architecture: str  # the first part of LLVM's triple; "" is any
    needs: frozenset[str]  # LLVM's names of the features
    vector_bits: int
    registers: int
    has_fma: bool


# What LLVM switches on with a feature of x86, and that feature off with. Only what kernels lean on
# is listed, the implied before what implies it (LLVM, lib/Target/X86/X86.td).
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

# Best first. What every CPU of an architecture has is not listed as a need.
_AVX512 = frozenset(("avx512f", "avx512vl", "avx512dq", "avx512bw"))
INSTRUCTION_SETS = (
    InstructionSet("avx512", "x86_64", _AVX512, 512, 32, True),
    InstructionSet("avx2", "x86_64", frozenset(("avx2", "fma")), 256, 16, True),
    InstructionSet("sse2", "x86_64", frozenset(), 128, 16, False),
    InstructionSet("neon", "aarch64", frozenset(), 128, 32, True),
    InstructionSet("generic", "", frozenset(), 128, 16, False),
)

# CPUs that multiply and load 512 bits in two steps, their units being half as wide (AMD, Software
# Optimization Guide for the Zen 4 Microarchitecture, 57647).
_HALF_WIDE = frozenset(("znver4",))

# Only these may be named: LLVM ends the process when it is given an x86 name it does not know.
# Beside each, what tells it from the other CPUs of its instruction set.
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
    "sapphirerapids": ("avx512", "bmi2 f16c avx512bf16 avx512fp16"),
    "cortex-a72": ("neon", ""),
    "neoverse-n1": ("neon", "lse rcpc fullfp16"),
    "neoverse-v1": ("neon", "lse rcpc fullfp16 bf16 sve"),
    "apple-m1": ("neon", "lse rcpc fullfp16 flagm sha3"),
}


@dataclass(frozen=True)
class Target:
    """A CPU that kernels are made for; part of the name of everything that is made for it."""

    triple: str
    cpu: str
    features: str  # as LLVM reads them: "+avx2,-avx512f", what is lacking last
    instruction_set: str
    vector_bits: int
    registers: int  # vector registers
    has_fma: bool
    l1_bytes: int  # data, per core
    l2_bytes: int  # per core
    l3_bytes: int  # as a whole
    cores: int  # that this process may keep busy
    threads: int  # of a call that does not say how many
    runs_here: bool = True
    uses_engine: bool = True  # False: TCONV_CPU=portable

    @property
    def converts_float16(self) -> bool:
        """Whether an instruction makes float32 of float16, and rounds it back."""
        features = self.features.split(",")
        implied = "f16c" in CPUS.get(self.cpu, ("", ""))[1].split() and "-f16c" not in features
        return self.instruction_set == "neon" or "+f16c" in features or implied

    @property
    def steps(self) -> int:
        """In how many steps a vector is multiplied, added or loaded."""
        return 2 if self.vector_bits == 512 and self.cpu in _HALF_WIDE else 1

    def __str__(self) -> str:
        """Describe the CPU on one line, without the hundred features."""
        fma = "FMA" if self.has_fma else "no FMA"
        caches = " + ".join(
            f"{size // 1024:,} KiB" for size in (self.l1_bytes, self.l2_bytes, self.l3_bytes)
        )
        return (
            f"{self.cpu}: {self.instruction_set}, {self.registers} registers of "
            f"{self.vector_bits} bits, {fma}, caches {caches}, "
            f"{self.cores} cores, {self.threads} threads"
        )


# ---- which CPU -----------------------------------------------------------------------------------


@cache
def target() -> Target:
    """Return the CPU of this machine, as far as the environment wants it used.

    Raises
    ------
    ParameterError : TCONV_CPU or TCONV_THREADS says what cannot be.

    >>> target().vector_bits in (128, 256, 512)
    True
    """
    return read_target(os.environ)


def read_target(environment: Mapping[str, str]) -> Target:
    """Return what `target` returns under some environment.

    >>> read_target({"TCONV_CPU": "portable", "TCONV_THREADS": "3"}).threads
    3
    """
    name = environment.get("TCONV_CPU", "").strip()
    threads = _threads(environment.get("TCONV_THREADS", "").strip())
    if name == "portable":
        return _made(INSTRUCTION_SETS[-1], "", name, "", threads, uses_engine=False)
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
    """Return the machine that LLVM describes so, with the caches and cores of this one.

    The name of the CPU is only LLVM's guess for a model it does not know. That does no harm: every
    feature is switched on or off by what the CPU and the operating system say.

    >>> target_of("x86_64-pc-linux", "generic", {"avx2": True, "fma": True}).vector_bits
    256
    """
    architecture, features = architecture_of(triple), _usable(features)
    row = next(
        row
        for row in INSTRUCTION_SETS
        if row.architecture in ("", architecture) and all(map(features.get, row.needs))
    )
    return _made(row, triple, cpu, _flags(features, "+-"), threads)


def _usable(features: Mapping[str, bool]) -> dict[str, bool]:
    """Switch off what could not be used: a hypervisor may hide any feature and show all others.

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
    """Write features as LLVM reads them: those with the first of the signs first.

    LLVM goes from left to right. A feature that is switched on switches on what it implies ("+vaes"
    does that with avx2), and one that is switched off also what implies it. So what this machine
    lacks comes last.

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
    """Return a CPU by LLVM's name of it, also one that this machine cannot run code for.

    >>> named_target("apple-m1").registers, named_target("skylake-avx512").vector_bits
    (32, 512)
    """
    if cpu not in CPUS:
        raise ParameterError(
            f"cpu={cpu!r} must be one that is known; pass one of {', '.join(CPUS)}."
        )
    host = _host()
    instruction_set, needs = CPUS[cpu]
    row = next(row for row in INSTRUCTION_SETS if row.name == instruction_set)
    is_native, features = architecture_of(host.triple) == row.architecture, _usable(host.features)
    if is_native and all(map(features.get, {*row.needs, *needs.split()})):
        # The name implies more than the needs above: what this machine lacks is switched off.
        return _made(row, host.triple, cpu, _flags(features, "-"), threads)
    system = "apple-macosx" if cpu.startswith("apple") else "unknown-linux-gnu"
    return _made(row, f"{row.architecture}-{system}", cpu, "", threads, runs_here=False)


def _made(
    row: InstructionSet,
    triple: str,
    cpu: str,
    features: str,
    threads: int | None,
    *,
    runs_here: bool = True,
    uses_engine: bool = True,
) -> Target:
    """Return a Target of one row of the table."""
    cores = core_count()
    return Target(
        triple,
        cpu,
        features,
        row.name,
        row.vector_bits,
        row.registers,
        row.has_fma,
        *(cache_bytes() if runs_here else USUAL_CACHE_BYTES),
        cores,
        threads or cores,
        runs_here,
        uses_engine,
    )


class _Host(NamedTuple):
    """What LLVM says about this machine."""

    triple: str
    cpu: str
    features: dict[str, bool]


@cache
def _host() -> _Host:
    """Ask LLVM what this machine is."""
    with _loading:
        if "llvmlite.binding" not in sys.modules:
            check_addresses(_LLVM_BYTES)
        with importing:
            from llvmlite import binding

        return _Host(
            binding.get_process_triple(),
            binding.get_host_cpu_name(),
            dict(binding.get_host_cpu_features()),
        )


def architecture_of(triple: str) -> str:
    """Return the first part of a triple, under one name for each architecture."""
    first = triple.partition("-")[0].lower()
    return {"amd64": "x86_64", "x86_64h": "x86_64", "arm64": "aarch64"}.get(first, first)


# ---- how many cores, how large caches ------------------------------------------------------------


# ---- the other settings --------------------------------------------------------------------------


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
    """Return the folder for files that can be made again, or why there is none.

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
            with suppress(RuntimeError):  # a relative one must be ignored, says its specification
                return _absolute(environment.get("XDG_CACHE_HOME", "")) / "tconv"
        home = _absolute(environment.get("HOME", "") or str(Path.home()))
        return home / ("Library/Caches" if platform == "darwin" else ".cache") / "tconv"
    except (RuntimeError, OSError):
        return "this user has no home folder"


def _absolute(path: str) -> Path:
    """Return a path, which must be absolute."""
    if not Path(path).is_absolute():
        raise RuntimeError
    return Path(path)
