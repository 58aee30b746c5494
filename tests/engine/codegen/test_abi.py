"""Records of native arguments: Python writes and generated code reads the same words by name."""

import ctypes
from importlib import import_module

import numpy as np
import pytest

from tconv.engine.codegen import abi
from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import begin
from tconv.engine.codegen.llvm import I64, PTR
from tconv.engine.compile.jit import load_kernel
from tconv.engine.target.target import read_target, target

CPU = target() if target().uses_engine else read_target({})
SOME = Record(pointers=("first", "second"), words=("third", "fourth"))
MODULES = (
    *("codegen.abi", "runtime.openmp", "content_hash", "kernels.pack_weights"),
    *("kernels.transform_weights", "kernels.transpose", "weight_gradient.driver"),
)


def test_words_are_packed_in_their_order_whatever_the_order_of_keywords():
    assert SOME.pack(fourth=4, second=2, first=1, third=3).tolist() == [1, 2, 3, 4]
    assert SOME.row({"third": 3, "first": 1}, second=2, fourth=4) == [1, 2, 3, 4]
    assert SOME.pack(SOME.addresses() | {"third": 3}, fourth=-1).tolist() == [0, 0, 3, -1]
    assert [SOME.place(name) for name in SOME] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"first": 1, "second": 2}, "a record of 4 words lacks third, fourth"),
        (dict.fromkeys((*SOME, "fifth"), 0), "a record of 4 words has no fifth"),
        ({"x": 0} | dict.fromkeys(("first", "second", "third"), 0), "lacks fourth and has no x"),
    ],
)
def test_every_word_is_given_and_no_other(given, fault):
    with pytest.raises(ValueError, match=f"{fault}$"):
        SOME.pack(given)


def test_a_name_stands_once():
    with pytest.raises(AssertionError, match="a name stands twice"):
        Record(pointers=("x",), words=("y", "x"))


def records():
    modules = [import_module(f"tconv.engine.{name}") for name in MODULES]
    found = {each for module in modules for each in vars(module).values() if type(each) is Record}
    return sorted(found, key=list)


@pytest.mark.parametrize("record", records(), ids=lambda record: "-".join(record)[:40])
def test_generated_code_reads_the_words_that_python_writes(record):
    """The n-th entry of a table, copied word by word in the opposite order."""

    def emit(module, name, element):
        code, a = begin(module, name, {"table": PTR, "to": PTR, "n": I64}, element)
        values = record.load(code, a["table"], a["n"])
        for place, name_of in enumerate(reversed([*record])):
            value = values[name_of]
            same = record.read(code, record.entry(code, a["table"], a["n"]), name_of)
            number = code.builder.ptrtoint(value, I64) if value.type == PTR else value
            again = code.builder.ptrtoint(same, I64) if same.type == PTR else same
            code.store(code.builder.and_(number, again), a["to"], place)
        code.end()

    name = "read_" + "_".join(record)
    address = load_kernel(name, emit, dtype="float32", target=CPU)
    words = np.random.default_rng(0).integers(1, 2**40, (3, len(record)))
    table = np.array([record.row(dict(zip(record, row.tolist(), strict=True))) for row in words])
    to = np.zeros(len(record), np.int64)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    for n in range(3):
        function(table.ctypes.data, to.ctypes.data, n)
        assert to.tolist() == words[n, ::-1].tolist()


def test_generated_code_writes_what_it_reads():
    def emit(module, name, element):
        code, a = begin(module, name, {"one": PTR, "other": PTR}, element)
        abi.RUN.store(code, a["other"], **abi.RUN.load(code, a["one"]))
        code.end()

    address = load_kernel("copy_run", emit, dtype="float32", target=CPU)
    one, other = abi.RUN.pack(start=5, to=-7, place=9), np.zeros(3, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(address)(
        one.ctypes.data, other.ctypes.data
    )
    assert np.array_equal(one, other)
