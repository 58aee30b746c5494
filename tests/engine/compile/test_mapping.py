"""Objects that become callable without LLVM: as LLVM would make them, or not at all."""

import ctypes
from importlib import import_module

import pytest

from tconv.engine.compile import mapping
from tconv.engine.target.target import read_target, target
from tconv.errors import UnsupportedError

jit = import_module("tconv.engine.compile.jit")
CPU = target() if target().uses_engine else read_target({})
here = pytest.mark.skipif(not mapping._IS_HERE, reason="LLVM loads objects on other systems")

NUMBERS = """
@table = private unnamed_addr constant [3 x i32] [i32 5, i32 7, i32 11]
define internal i32 @inner(i64 %n) noinline {
  %p = getelementptr i32, ptr @table, i64 %n
  %v = load i32, ptr %p
  ret i32 %v
}
define i32 @"one"(i64 %n) {
  %v = call i32 @inner(i64 %n)
  ret i32 %v
}
define i32 @other(i64 %n) {
  ret i32 3
}
"""
MASKS = """
define void @one(ptr %to) {
  store <8 x i32> <i32 1, i32 2, i32 3, i32 4, i32 5, i32 6, i32 7, i32 8>, ptr %to, align 4
  ret void
}
"""
WRITABLE = """
@count = internal global i32 5
define i32 @one() {
  %v = load i32, ptr @count
  store i32 6, ptr @count
  ret i32 %v
}
"""
LOST = """
declare i32 @nowhere()
define i32 @one() {
  %v = call i32 @nowhere()
  ret i32 %v
}
"""


def object_of(text, codemodel="jitdefault"):
    with jit._parsed(jit.text_of([], CPU) + text) as module:
        machine = (
            jit._llvm()
            .Target.from_triple(CPU.triple)
            .create_target_machine(
                cpu=CPU.cpu, features=CPU.features, opt=1, codemodel=codemodel, jit=True
            )
        )
        return machine.emit_object(module)


def number(address, n):
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)(address)(n)


@here
def test_code_runs_with_its_constants_and_its_own_functions():
    found = mapping.mapped(object_of(NUMBERS))
    assert found.keys() == {"one", "other"}
    assert [number(found["one"], n) for n in range(3)] == [5, 7, 11]
    assert number(found["other"], 0) == 3


@here
def test_vectors_of_constants_are_where_code_reads_them():
    found = mapping.mapped(object_of(MASKS))
    to = (ctypes.c_int32 * 8)()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(found["one"])(to)
    assert list(to) == [1, 2, 3, 4, 5, 6, 7, 8]


@here
def test_an_object_is_mapped_as_often_as_it_is_asked_for():
    data = object_of(NUMBERS)
    one, other = mapping.mapped(data)["one"], mapping.mapped(data)["one"]
    assert one != other
    assert number(one, 1) == number(other, 1) == 7


@here
@pytest.mark.parametrize("text", [WRITABLE, LOST])
def test_what_is_not_known_is_left_to_llvm(text):
    assert mapping.mapped(object_of(text)) is None


@here
def test_relocations_of_other_models_are_left_to_llvm():
    assert mapping.mapped(object_of(NUMBERS, "small")) is None


@here
def test_memory_that_must_not_become_code_is_left_to_llvm(monkeypatch):
    system = mapping._system()

    class Strict:
        mmap, munmap = system.mmap, system.munmap

        def mprotect(self, *_):
            return -1

    monkeypatch.setattr(mapping, "_system", Strict)
    assert mapping.mapped(object_of(NUMBERS)) is None


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x7fELF", b"\x7fELF" + bytes(200)])
def test_what_is_no_object_is_left_to_llvm(data):
    assert mapping.mapped(data) is None


@here
def test_part_of_an_object_is_left_to_llvm_or_whole_in_what_counts():
    data = object_of(NUMBERS)
    for size in range(0, len(data), 7):
        assert mapping.mapped(data[:size]) is None


def test_llvm_loads_the_same(monkeypatch):
    data = object_of(NUMBERS)
    monkeypatch.setattr(jit, "mapped", lambda _: None)
    monkeypatch.setattr(jit, "_engines", [])
    found = jit._linked(["one"], data, CPU)
    assert [number(found["one"], n) for n in range(3)] == [5, 7, 11]
    with pytest.raises(UnsupportedError, match=r"^kernel one calls nowhere; "):
        jit._linked(["one"], object_of(LOST), CPU)
    monkeypatch.setattr(jit, "_why_no_code", lambda: "this system forbids it")
    with pytest.raises(UnsupportedError, match=r"^this system forbids it; set TCONV_CPU=portable"):
        jit._linked(["one"], data, CPU)
