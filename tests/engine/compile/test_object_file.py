"""The symbols of object files, as LLVM writes them for every system."""

import struct
from contextlib import suppress
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding

from slow import mostly_slow
from tconv.engine.choose import all_plans
from tconv.engine.compile.object_file import check_object, symbols
from tconv.engine.layouts import layout_of
from tconv.engine.lowering import Lowering
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import architecture_of, named_target
from tconv.geometry.geometry import Geometry

jit = import_module("tconv.engine.compile.jit")

IR = """
target triple = "{triple}"
declare void @elsewhere(ptr)
declare double @llvm.sqrt.f64(double)
@shown = global i32 5
@hidden = internal global i32 6
@constants = private unnamed_addr constant [4 x float] [float 1.0, float 2.0, float 3.0, float 4.0]
define internal double @inner(double %x) noinline {{
  %y = call double @llvm.sqrt.f64(double %x)
  ret double %y
}}
define weak void @weak() {{ ret void }}
define double @kernel(double %x) {{
  {call}
  %y = call double @inner(double %x)
  %n = load i32, ptr @hidden
  %z = sitofp i32 %n to double
  %s = fadd double %y, %z
  ret double %s
}}
"""
DEFINED = {"shown", "weak", "kernel"}
TRIPLES = [
    "x86_64-unknown-linux-gnu",
    "x86_64-pc-windows-msvc-elf",
    "x86_64-apple-macosx",
    "i386-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "arm64-apple-macosx",
    "powerpc64-unknown-linux-gnu",
    "s390x-unknown-linux-gnu",
]


def compiled(triple, *, calls):
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    call = "call void @elsewhere(ptr @shown)" if calls else ""
    text = IR.format(triple=triple, call=call)
    machine = binding.Target.from_triple(triple).create_target_machine(
        opt=1, codemodel="default", reloc="pic"
    )
    with binding.create_context() as context, binding.parse_assembly(text, context) as parsed:
        return machine.emit_object(parsed)


@pytest.mark.parametrize("triple", TRIPLES)
def test_names_are_those_that_others_can_see(triple):
    found = symbols(compiled(triple, calls=True))
    assert "elsewhere" in found.undefined
    assert found.defined == DEFINED
    free = symbols(compiled(triple, calls=False))
    assert free.defined == DEFINED
    assert free.undefined == frozenset()


def test_a_library_function_that_llvm_falls_back_to_is_seen():
    text = """
    target triple = "x86_64-unknown-linux-gnu"
    declare float @llvm.fma.f32(float, float, float)
    define float @kernel(float %x) {
      %y = call float @llvm.fma.f32(float %x, float %x, float %x)
      ret float %y
    }"""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu")
    found = {}
    for cpu in ("x86-64", "haswell"):
        machine = target.create_target_machine(cpu=cpu, opt=1)
        with binding.create_context() as context, binding.parse_assembly(text, context) as parsed:
            found[cpu] = symbols(machine.emit_object(parsed)).undefined
    assert found == {"x86-64": {"fmaf"}, "haswell": frozenset()}


ELF = compiled("x86_64-unknown-linux-gnu", calls=True)
MACH_O = compiled("arm64-apple-macosx", calls=True)


@pytest.mark.parametrize("data", [b"", b"MZ" + bytes(100), b"\x7fELF", b"\0asm" + bytes(60)])
def test_what_is_no_object_is_refused(data):
    with pytest.raises(ValueError, match=r"^not an? "):
        symbols(data)


@given(st.sampled_from([ELF, MACH_O]), st.data())
def test_a_part_of_an_object_is_refused_or_tells_the_whole(whole, data):
    end = data.draw(st.integers(0, len(whole) - 1))
    with suppress(ValueError):
        assert symbols(whole[:end]) == symbols(whole)


@given(st.sampled_from([ELF, MACH_O]), st.data())
def test_a_damaged_object_raises_nothing_but_value_error(whole, data):
    at, byte = data.draw(st.integers(4, len(whole) - 1)), data.draw(st.integers(0, 255))
    with suppress(ValueError):
        symbols(whole[:at] + bytes([byte]) + whole[at + 1 :])


def test_a_table_of_load_commands_that_turns_in_place_ends():
    ncmds = struct.pack("<I", 2**32 - 1)
    looped = MACH_O[:16] + ncmds + MACH_O[20:32] + struct.pack("<II", 99, 0) + MACH_O[40:]
    with pytest.raises(ValueError, match="not a complete object: "):
        symbols(looped)


# ---- what LLVM may be given ----------------------------------------------------------------------

CHECKED = {
    "x86_64-unknown-linux-gnu": "x86_64",
    "aarch64-unknown-linux-gnu": "aarch64",
    "x86_64-apple-macosx": "x86_64",
    "arm64-apple-macosx": "aarch64",
}
IN_ITSELF = IR.replace("declare void @elsewhere(ptr)", "").replace("{call}", "")


def plain(triple, codemodel="jitdefault"):
    """As kernels are compiled: a function with constants."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(triple).create_target_machine(
        opt=1, codemodel=codemodel, jit=True
    )
    text = IN_ITSELF.format(triple=triple)
    with binding.create_context() as context, binding.parse_assembly(text, context) as parsed:
        return machine.emit_object(parsed)


@pytest.mark.parametrize(
    "cpu",
    mostly_slow(["x86-64", "haswell", "skylake-avx512", "neoverse-v1", "apple-m1"], "haswell"),
)
def test_every_kernel_of_a_plan_passes(cpu):
    here, geometry = named_target(cpu), Geometry.of((1, 8, 9, 9), (8, 8, 4, 4), stride=2)
    problem = Problem(geometry)
    for plan in all_plans(problem, "float32", here, 2)[:6]:
        kernels = Lowering(layout_of(problem, plan, np.dtype("float32"), here))
        text = jit.text_of(kernels.emits.values(), here)
        machine = jit._machine(here.triple, here.cpu, here.features)
        with jit._parsed(text) as module:
            data = machine.emit_object(module)
        check_object(data, architecture_of(here.triple), is_apple="apple" in here.triple)


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64", "riscv64"])
def test_an_object_for_another_machine_is_refused(triple, architecture):
    data = compiled(triple, calls=False)
    fits = CHECKED.get(triple) == architecture or triple.startswith(f"{architecture}-pc")
    for is_apple in (False, True):
        if fits and is_apple == ("apple" in triple):
            check_object(data, architecture, is_apple=is_apple)
        else:
            with pytest.raises(ValueError, match=r"for another machine|of this system"):
                check_object(data, architecture, is_apple=is_apple)


@pytest.mark.parametrize("triple", CHECKED)
def test_part_of_an_object_is_refused_unless_it_has_all_that_counts(triple):
    data = plain(triple)
    for size in range(0, len(data), 5):
        with suppress(ValueError):
            check_object(data[:size], CHECKED[triple], is_apple="apple" in triple)
            assert symbols(data[:size]) == symbols(data)


def elf_sections(data):
    start, step, count = struct.unpack_from("<40xQ10xHH", data)
    return [start + n * step for n in range(count)]


@pytest.mark.parametrize(
    ("field", "at"),
    [("type", 4), ("offset", 24), ("size", 32), ("link", 40), ("info", 44), ("align", 48)],
)
def test_a_section_that_is_not_there_or_is_unknown_is_refused(field, at):
    data = plain("x86_64-unknown-linux-gnu")
    seen = 0
    for start in elf_sections(data)[1:]:
        spoiled = bytearray(data)
        struct.pack_into("<I", spoiled, start + at, 0x7FFFFFF1)
        (kind,) = struct.unpack_from("<I", data, start + 4)
        if field == "info" and kind != 4:  # of others it says nothing
            continue
        seen += 1
        with pytest.raises(ValueError, match="not a complete object"):
            check_object(bytes(spoiled), "x86_64")
    assert seen > (0 if field == "info" else 4)


@pytest.mark.parametrize("codemodel", ["jitdefault", "small"])
def test_addresses_and_symbols_outside_are_refused(codemodel):
    data = plain("x86_64-unknown-linux-gnu", codemodel)
    check_object(data, "x86_64")
    seen = 0
    for start in elf_sections(data):
        kind, offset = struct.unpack_from("<4xI16xQ", data, start)
        if kind not in (2, 4):
            continue
        # of a table of symbols its second entry: a value; of addresses: place, kind and symbol
        for at in (offset + 24 + 8,) if kind == 2 else (offset, offset + 8, offset + 12):
            spoiled = bytearray(data)
            struct.pack_into("<I", spoiled, at, 0x7FFFFFF1)
            seen += 1
            if kind == 2 and struct.unpack_from("<H", data, offset + 24 + 6)[0] >= 0xFF00:
                continue  # the name of the file, whose value says nothing
            with pytest.raises(ValueError, match="not a complete object"):
                check_object(bytes(spoiled), "x86_64")
    assert seen > 3


@given(st.binary(max_size=200))
def test_what_is_no_object_is_refused_by_the_check_too(data):
    for start in (b"", b"\x7fELF", b"\x7fELF\2\1", b"\xcf\xfa\xed\xfe"):
        with pytest.raises(ValueError, match=r"^not a|^an object"):
            check_object(start + data, "x86_64", is_apple=start[:1] == b"\xcf")
