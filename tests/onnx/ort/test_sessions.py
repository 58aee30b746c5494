"""Sessions of ONNX Runtime: loaded with the given options, quietly, and once."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest

from onnx_graphs import by_onnx_runtime, model_of, transposed
from strategies import integers_like, same_numbers
from tconv.errors import ModelError
from tconv.onnx.ort.options import Settings
from tconv.onnx.ort.sessions import WholeModel, clean_message, load

X = integers_like((1, 2, 4), "float32", 1)
MODEL = model_of(
    [transposed("x", "w", "y")], {"x": X}, ["y"], {"w": integers_like((2, 3, 2), "float32", 2)}
)
BYTES = MODEL.SerializeToString()


@pytest.mark.parametrize("options", [None, onnxruntime.SessionOptions()])
def test_what_is_refused_is_said_once_and_nothing_is_printed(tmp_path, capfd, options):
    path = str(tmp_path / "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    for source, name in ((b"no model", "the model"), (path, repr(path))):
        with pytest.raises(ModelError, match=f"^ONNX Runtime refuses {name}: .*; check") as raised:
            load(source, Settings.of(None, options), spin=True)
        assert "ONNXRuntimeError" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_a_whole_model_is_loaded_when_it_is_asked_for_and_once(monkeypatch):
    began, begin = [], onnxruntime.InferenceSession.__init__

    def record(self, *arguments, **keywords):
        began.append(threading.get_ident())
        begin(self, *arguments, **keywords)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", record)
    whole = WholeModel(BYTES, Settings(threads=1))
    assert (whole.is_loaded, began) == (False, [])
    with ThreadPoolExecutor(8) as pool:
        sessions = set(pool.map(lambda _: whole.session(), range(32)))
    assert (whole.is_loaded, len(began), len(sessions)) == (True, 1, 1)
    (y,) = whole.session().run(None, {"x": X})
    assert same_numbers(y, by_onnx_runtime(MODEL, {"x": X})[0])


def test_a_whole_model_goes_with_whoever_asked_for_it():
    whole = WholeModel(BYTES, Settings(threads=1))
    seen = weakref.ref(whole.session())
    del whole
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("change", ["other weights", "removed", "touched"])
def test_a_file_that_changed_is_not_loaded(tmp_path, change):
    path = tmp_path / "model.onnx"
    onnx.save(MODEL, path)
    first, second = (WholeModel(str(path), Settings(threads=1)) for _ in range(2))
    kept = first.session()
    if change == "removed":
        path.unlink()
    else:
        path.write_bytes(BYTES if change == "touched" else BYTES.replace(b"up y", b"up z"))
        os.utime(path, ns=(1, 1))  # the clock of a file system may be coarse
    with pytest.raises(ModelError, match=r"model\.onnx' is no longer the file"):
        second.session()
    assert first.session() is kept


def test_a_fallback_is_switched_before_and_after_loading():
    whole = WholeModel(BYTES, Settings(threads=1))
    assert not whole.options.intra_op_num_threads - 1
    whole.fall_back(True)
    assert not whole.is_loaded
    assert whole.session()._enable_fallback
    whole.fall_back(False)
    assert not whole.session()._enable_fallback


def test_a_message_of_onnx_runtime_loses_its_codes():
    session = load(BYTES, Settings(threads=1), spin=False)
    with pytest.raises(Exception, match="ONNXRuntimeError") as raised:
        session.run(None, {"x": np.ones((1, 3, 4), np.float32)})
    message = clean_message(raised.value)
    assert "ONNXRuntimeError" not in message
    assert "Got: 3 Expected: 2" in message
