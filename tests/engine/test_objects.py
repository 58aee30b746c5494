"""The symbols of object files, as LLVM writes them for every system."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding

from tconv.engine.objects import symbols, undefined_symbols

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
            found[cpu] = undefined_symbols(machine.emit_object(parsed))
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
