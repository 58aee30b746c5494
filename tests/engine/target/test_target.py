"""The target: rows that features choose, hidden features, and what the environment names."""

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from llvmlite import binding

import tconv
from slow import mostly_slow
from tconv.engine.codegen.llvm import (
    FLOAT,
    HALF,
    I16,
    PTR,
    VOID,
    Builder,
    Function,
    FunctionType,
    VectorType,
)
from tconv.engine.compile.jit import assembly
from tconv.engine.target.target import (
    CPUS,
    cache_folder,
    named_target,
    read_target,
    target,
    target_of,
)
from tconv.errors import ParameterError
from tconv.system.topology import core_count

module = import_module(
    "tconv.engine.target.target"
)  # the package may show the function of this name

AVX2 = {"avx2": True, "fma": True}
AVX512 = {**AVX2, "avx512f": True, "avx512vl": True, "avx512dq": True, "avx512bw": True}


# ---- instruction sets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("triple", "features", "name", "bits", "registers", "has_fma"),
    [
        ("x86_64-unknown-linux-gnu", AVX512, "avx512", 512, 32, True),
        ("x86_64-unknown-linux-gnu", {**AVX512, "avx512vl": False}, "avx2", 256, 16, True),
        ("x86_64-pc-windows-msvc", AVX2, "avx2", 256, 16, True),
        ("x86_64-apple-darwin23", {"avx2": True, "fma": False}, "sse2", 128, 16, False),
        ("x86_64h-apple-darwin23", AVX2, "avx2", 256, 16, True),
        ("x86_64-unknown-linux-gnu", {}, "sse2", 128, 16, False),
        ("aarch64-unknown-linux-gnu", {"neon": True, "sve": True}, "neon", 128, 32, True),
        ("arm64-apple-darwin23", {}, "neon", 128, 32, True),
        ("riscv64-unknown-linux-gnu", {"v": True}, "generic", 128, 16, False),
        ("i686-unknown-linux-gnu", AVX2, "generic", 128, 16, False),
    ],
)
def test_the_first_row_whose_needs_are_met_is_taken(
    triple, features, name, bits, registers, has_fma
):
    made = target_of(triple, "some-cpu", features)
    assert (made.triple, made.cpu, made.isa.name) == (triple, "some-cpu", name)
    assert (made.vector_bits, made.isa.registers, made.has_fma) == (bits, registers, has_fma)
    assert made.runs_here
    assert made.uses_engine


def test_units_may_be_half_as_wide_as_vectors():
    triple = "x86_64-unknown-linux-gnu"
    made = {cpu: target_of(triple, cpu, AVX512) for cpu in ("znver4", "znver5", "skylake-avx512")}
    assert {cpu: each.steps for cpu, each in made.items()} == {
        "znver4": 2, "znver5": 1, "skylake-avx512": 1,
    }  # fmt: skip
    assert target_of(triple, "znver4", AVX2).steps == 1  # where a system hides the wide ones


def test_every_feature_is_switched_on_or_off_and_tiles_always_off():
    features = {"avx2": True, "amx-tile": True, "fma": True, "sse4a": False, "amx-int8": False}
    made = target_of("x86_64-unknown-linux-gnu", "x", features)
    assert made.features == "+avx2,+fma,-amx-int8,-amx-tile,-sse4a"


# ---- x86 processors of which a hypervisor hides something ----------------------------------------

NAMES = (
    "sse3 ssse3 sse4.1 sse4.2 avx avx2 fma f16c aes pclmul vaes vpclmulqdq gfni avxvnni avxifma "
    "avxneconvert avxvnniint8 avxvnniint16 sha512 sm3 sm4 bmi bmi2 avx512f avx512vl avx512dq "
    "avx512bw avx512cd avx512vnni avx512bf16 avx512vbmi2 avx512fp16 amx-tile amx-int8"
)
NEW = dict.fromkeys(NAMES.split(), True)
# What LLVM writes of `mixed` only where it believes that the processor has a feature.
TRACES = {
    "avx": r"\tv|ymm|zmm",
    "avx2": r"\tvp(add|mull)w\t.*ymm|zmm",
    "fma": r"\tvfn?m(add|sub)",
    "f16c": r"\tvcvtph2ps",
    "avx512f": r"zmm|\{%k",
    "avx512bw": r"\tvp(add|mull)w\t.*zmm",
}


def mixed(made):
    """A multiply-add of floats, a product and a sum of int16, floats of halves: 512 bits each."""

    pointer, floats = PTR, VectorType(FLOAT, 16)
    integers, halves = (VectorType(I16, 32), VectorType(HALF, 16))
    function = Function(made, FunctionType(VOID, [pointer] * 3), "mixed")
    fma = Function(made, FunctionType(floats, [floats] * 3), "llvm.fma.v16f32")
    builder, (x, y, z) = Builder(function.append_basic_block()), function.args
    a, b = (builder.load(at, typ=floats, align=4) for at in (x, y))
    widened = builder.fpext(builder.load(z, typ=halves, align=2), floats)
    builder.store(builder.call(fma, [a, b, widened]), x, align=4)
    i, j = (builder.load(at, typ=integers, align=2) for at in (y, z))
    builder.store(builder.add(builder.mul(i, j), j), y, align=2)
    builder.ret_void()


@given(st.sets(st.sampled_from([*NEW])))
@example({"avx2"})
@example({"avx"})
@example({"f16c", "avx512f"})
def test_nothing_that_is_hidden_is_written(hidden):
    made = target_of(
        "x86_64-unknown-linux-gnu", "sapphirerapids", {name: name not in hidden for name in NEW}
    )
    text = assembly("mixed", mixed, made)
    for name in hidden & TRACES.keys():
        assert not re.search(TRACES[name], text), name
    width = 512 if "zmm" in text else 256 if re.search(TRACES["avx2"], text) else 128
    assert made.vector_bits <= width  # and what is chosen can be written
    assert made.has_fma <= bool(re.search(TRACES["fma"], text))
    assert made.converts_float16 == bool(re.search(TRACES["f16c"], text))


def test_every_trace_is_there_where_nothing_is_hidden():
    text = assembly("mixed", mixed, target_of("x86_64-unknown-linux-gnu", "sapphirerapids", NEW))
    assert all(re.search(trace, text) for trace in TRACES.values())


EMULATOR = shutil.which("qemu-x86_64-static")
# Its operands and results stand in a file: OpenBLAS, too, ends the process on such processors.
EMULATED = """
import sys
import numpy as np
import tconv
from tconv.engine.target.target import target
cases = np.load(sys.argv[1])
for n in range(len(cases) // 3):
    x, w, y = (cases[f"{name}{n}"] for name in "xwy")
    assert np.array_equal(tconv.conv_transpose(x, w, stride=2), y), n
print(target().isa.name)
"""


@pytest.mark.skipif(not EMULATOR, reason="qemu-x86_64-static (Debian: qemu-user-static) is missing")
@pytest.mark.parametrize(
    ("hidden", "name"),
    mostly_slow(
        [
            ("", "avx2"),
            ("avx2", "sse2"),
            ("avx", "sse2"),
            ("fma", "sse2"),
            ("f16c", "avx2"),
            ("avx2,-vaes", "sse2"),
        ],
        ("avx2", "sse2"),
    ),
)
def test_an_emulated_processor_runs_what_is_written_for_it(hidden, name, tmp_path):
    rng, cases = np.random.default_rng(0), {}
    sizes = ((1, 3, 6, 6), (3, 4, 4, 4)), ((1, 8, 40), (8, 3, 8))
    types = ("float32", "float64", "float16", "int16")
    for n, ((size, kernel), dtype) in enumerate(product(sizes, types)):
        x, w = (rng.integers(-4, 5, shape) for shape in (size, kernel))
        y = tconv.conv_transpose(x, w, stride=2)
        cases |= {
            f"{key}{n}": each.astype(dtype) for key, each in zip("xwy", (x, w, y), strict=True)
        }
    np.savez(tmp_path / "cases.npz", **cases)
    environment = {
        **{key: value for key, value in os.environ.items() if key != "TCONV_CPU"},
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TCONV_CACHE": "off",
        "TCONV_THREADS": "2",
        "OPENBLAS_CORETYPE": "Nehalem",
    }
    command = [EMULATOR, "-cpu", f"max,-{hidden}" if hidden else "max", sys.executable, "-c"]
    done = subprocess.run(
        [*command, EMULATED, tmp_path / "cases.npz"],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.split()) == (0, [name]), done.stderr


def test_this_machine_gets_nothing_that_llvm_says_it_lacks():
    host = binding.get_host_cpu_features()
    made = read_target({})
    switched_on = [flag[1:] for flag in made.features.split(",") if flag.startswith("+")]
    assert all(host[name] for name in switched_on)
    assert set(made.isa.features) <= set(switched_on)


def test_a_target_is_a_fact_that_can_be_a_key():
    assert target() is target()
    assert hash(read_target({})) == hash(read_target({}))
    assert read_target({}) == read_target({"TCONV_CPU": "", "TCONV_THREADS": ""})
    assert str(named_target("apple-m1")).startswith(
        "apple-m1: neon, 32 registers of 128 bits, FMA, caches 32 KiB + 512 KiB + 8,192 KiB, "
    )


def probe(bits):
    """A multiply-add of vectors of some bits."""

    def emit(made):

        vector, pointer = VectorType(FLOAT, bits // 32), PTR
        function = Function(made, FunctionType(VOID, [pointer] * 3), "probe")
        fma = Function(made, FunctionType(vector, [vector] * 3), f"llvm.fma.v{bits // 32}f32")
        builder = Builder(function.append_basic_block())
        loaded = [builder.load(pointer, typ=vector) for pointer in function.args]
        builder.store(builder.call(fma, loaded), function.args[0])
        builder.ret_void()

    return emit


@pytest.mark.parametrize("cpu", CPUS)
def test_llvm_agrees_with_the_table_of_cpus(cpu):
    named = named_target(cpu)
    text = assembly("probe", probe(512), named)
    width = 512 if "zmm" in text else 256 if "ymm" in text else 128
    assert width == named.vector_bits
    assert bool(re.search(r"\b(vfmadd|fmla)", text)) is named.has_fma
    assert ("apple" in named.triple) is cpu.startswith("apple")


def test_an_unknown_name_is_refused_before_llvm_sees_it():
    with pytest.raises(ParameterError, match=r"^cpu='pentium5' must be one that is known; "):
        named_target("pentium5")


def test_caches_of_a_cpu_that_is_not_here_are_the_usual_ones(monkeypatch):
    host = module._Host("riscv64-unknown-linux-gnu", "generic", {})
    monkeypatch.setattr(module, "_host", lambda: host)
    named = named_target("skylake-avx512")
    assert not named.runs_here
    assert (named.l1_bytes, named.l2_bytes, named.l3_bytes) == (32 * 1024, 512 * 1024, 8 * 1024**2)
    assert named.triple == "x86_64-unknown-linux-gnu"
    assert named.features == ""


# ---- TCONV_CPU and TCONV_THREADS -----------------------------------------------------------------


@pytest.fixture
def old_haswell(monkeypatch):
    features = {**AVX2, "bmi2": True, "f16c": True, "adx": False, "avx512f": False}
    host = module._Host("x86_64-unknown-linux-gnu", "haswell", features)
    monkeypatch.setattr(module, "_host", lambda: host)


@pytest.mark.usefixtures("old_haswell")
def test_a_named_cpu_loses_what_the_machine_lacks():
    named = read_target({"TCONV_CPU": "x86-64-v3"})
    assert (named.cpu, named.isa.name) == ("x86-64-v3", "avx2")
    assert named.features == "-adx,-avx512f"
    assert read_target({"TCONV_CPU": "x86-64"}).vector_bits == 128
    assert read_target({"TCONV_CPU": "haswell"}) == read_target({})


@pytest.mark.parametrize("cpu", ["skylake-avx512", "skylake", "neoverse-v1", "HASWELL", "x 1"])
@pytest.mark.usefixtures("old_haswell")
def test_a_cpu_that_the_machine_cannot_stand_in_for_is_refused(cpu):
    with pytest.raises(ParameterError) as error:
        read_target({"TCONV_CPU": cpu})
    assert str(error.value) == (
        f"TCONV_CPU={cpu!r} must name a CPU whose instructions this machine has; unset it or set "
        "one of portable, haswell, x86-64, x86-64-v3."
    )


def test_an_arm_without_sve_is_no_neoverse_v1(monkeypatch):
    features = {"neon": True, "lse": True, "rcpc": True, "fullfp16": True, "sve": False}
    host = module._Host("aarch64-unknown-linux-gnu", "cortex-x1", features)
    monkeypatch.setattr(module, "_host", lambda: host)
    assert read_target({"TCONV_CPU": "neoverse-n1"}).features == "-sve"
    with pytest.raises(ParameterError, match="portable, cortex-x1, cortex-a72, neoverse-n1"):
        read_target({"TCONV_CPU": "neoverse-v1"})


def test_portable_means_no_engine_and_does_not_load_llvm():
    code = (
        "import sys, tconv\nfrom tconv.engine.target.target import target\n"
        "print(target().uses_engine, target().cpu, 'llvmlite' in sys.modules)"
    )
    environment = {**os.environ, "TCONV_CPU": "portable"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "portable", "False"]


def test_threads_are_the_cores_unless_told():
    assert read_target({}).threads == read_target({}).cores == core_count()
    assert read_target({"TCONV_THREADS": " 7 "}).threads == 7
    assert read_target({"TCONV_THREADS": "7"}).cores == core_count()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1_0", "1025", "٣", "9" * 5000])
def test_threads_must_be_a_positive_integer(text):
    with pytest.raises(ParameterError) as error:
        read_target({"TCONV_THREADS": text})
    assert str(error.value) == (
        f"TCONV_THREADS={text!r} must be an integer from 1 to 1024; "
        f"unset it to use all {core_count()} cores."
    )


# ---- TCONV_CACHE ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"TCONV_CACHE": "/a/b", "HOME": "/h"}, "/a/b"),
        ("linux", {"HOME": "/h"}, "/h/.cache/tconv"),
        ("linux", {"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/tconv"),
        ("linux", {"HOME": "/h", "XDG_CACHE_HOME": "relative"}, "/h/.cache/tconv"),
        ("freebsd14", {"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/tconv"),
        ("darwin", {"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/Library/Caches/tconv"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/tconv"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="paths as POSIX writes them")
def test_the_folder_of_the_cache(platform, environment, folder):
    assert cache_folder(environment, platform) == Path(folder)


def test_a_relative_folder_is_one_of_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cache_folder({"TCONV_CACHE": "kept"}) == tmp_path / "kept"


@pytest.mark.parametrize(
    ("platform", "environment", "reason"),
    [
        ("linux", {"TCONV_CACHE": "off", "HOME": "/h"}, "TCONV_CACHE=off"),
        ("linux", {"TCONV_CACHE": "OFF"}, "TCONV_CACHE=OFF"),
        ("linux", {"HOME": "nowhere"}, "this user has no home folder"),
        ("linux", {"TCONV_CACHE": "~nobody-of-this-name/x"}, "this user has no home folder"),
        ("win32", {"HOME": "/h"}, "this user has no home folder"),
    ],
)
def test_why_there_is_no_folder(platform, environment, reason):
    assert cache_folder(environment, platform) == reason


def test_the_environment_is_the_processes_own_unless_given(monkeypatch, tmp_path):
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("TCONV_CACHE", "off")
    assert cache_folder() == "TCONV_CACHE=off"
