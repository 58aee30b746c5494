"""Networks over volumes: the bits of the whole, resumed where a run was killed; what is refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from piece_networks import Maker, encoder_decoder

import tconv
from strategies import draws
from tconv.cli import main
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ParameterError,
    ShapeError,
    UnsupportedError,
)
from tconv.graph import Programs
from tconv.volumes import run, schedulers
from volume_files import contents, leftovers, make_source

SLOW = """
import sys, time
from tconv.volumes import run
from tconv.volumes.target import Target
write = Target.write
def slowly(self, box, chunk):
    write(self, box, chunk)
    time.sleep(0.02)
Target.write = slowly
run("net.onnx", "x.zarr", sys.argv[1], tile=12, workers=2, progress=False)
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model_of(graph, rank, sizes=None):
    """An ONNX model of a graph; of sizes that are left open by default."""
    nodes = [
        helper.make_node(
            each.operator,
            list(each.inputs),
            list(each.outputs),
            name=each.name,
            **{name: value for name, value in each.attributes.items() if name != "version"},
        )
        for each in graph.nodes
    ]
    shape = ["N", 1, *(sizes or [f"I{n}" for n in range(rank)])]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(graph.outputs[0], TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )


def network(rank, seed=0, down=("max", "conv"), up=("transposed", "linear")):
    graph = encoder_decoder(rank, seed, down, up)
    return model_of(graph, rank), graph


def read(path="y.zarr"):
    return zarr.open_array(path, mode="r")[...]


def whole_of(graph, x):
    (y,) = Programs(graph, 1, method="direct")([x.astype(np.float32)])
    return y


@draws(0.1)  # 25 under "ci"
@given(st.data(), st.integers(1, 3), st.integers(0, 99))
def test_a_target_has_the_bits_of_the_whole(data, rank, seed):
    model, graph = network(rank, seed)
    size = tuple(4 * data.draw(st.integers(2, {1: 12, 2: 7, 3: 4}[rank])) for _ in range(rank))
    tile = data.draw(st.sampled_from(["auto", 9, (12,) * rank]))
    first = data.draw(st.sampled_from([(2, 1), (1,), ()]))
    kind = data.draw(st.sampled_from(["float32", "float64", "uint8"]))
    x = np.random.default_rng(seed).integers(0, 5, (*first, *size)).astype(kind)
    source = zarr.create_array({}, shape=x.shape, chunks=(5,) * x.ndim, dtype=kind)
    source[...] = x
    target = zarr.storage.MemoryStore()
    report = run(model, source, target, tile=tile, workers=2, progress=False)
    whole = whole_of(graph, x.reshape(-1, 1, *size)).reshape(x.shape)
    found = zarr.open_array(target, mode="r")[...]
    assert found.dtype == np.float32
    assert report.shape == whole.shape
    assert found.tobytes() == whole.tobytes()


def test_a_killed_run_goes_on_and_leaves_the_same_bytes():
    model, graph = network(3)
    onnx.save(model, "net.onnx")
    x = make_source("x.zarr", (1, 48, 36, 36), (1, 16, 16, 16))
    report = run("net.onnx", "x.zarr", "whole.zarr", tile=12, progress=False)
    assert report.computed == 4 * 3 * 3
    Path("slow.py").write_text(SLOW)
    paths = {**os.environ, "PYTHONPATH": str(Path(tconv.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "slow.py", "y.zarr"], env=paths)
    while sum(1 for each in Path("y.zarr").glob("c/**/*") if each.is_file()) < 8:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    report = run("net.onnx", "x.zarr", "y.zarr", tile=12, progress=False)
    assert 8 <= report.found < 36
    assert report.found + report.computed == 36
    assert not leftovers("y.zarr")
    assert contents("y.zarr") == contents("whole.zarr")
    assert read().tobytes() == whole_of(graph, x[np.newaxis]).tobytes()
    assert run("net.onnx", "x.zarr", "y.zarr", progress=False).computed == 0


def test_another_network_is_no_way_to_go_on():
    np.save("x.npy", np.ones((1, 24, 24), np.float32))
    run(network(2)[0], "x.npy", "y.zarr", tile=12, progress=False)
    with pytest.raises(ParameterError, match=r"of another computation \(model: "):
        run(network(2, seed=1)[0], "x.npy", "y.zarr", tile=12, progress=False)
    with pytest.raises(ParameterError, match="has been begun"):
        run(network(2)[0], "x.npy", "y.zarr", tile=12, resume=False, progress=False)
    report = run(network(2, seed=1)[0], "x.npy", "y.zarr", tile=12, overwrite=True, progress=False)
    assert report.computed == 4


def test_tiles_are_as_large_as_memory_allows(monkeypatch):
    # Else what Python holds grows from one run to the next.
    monkeypatch.setattr(schedulers, "resident_bytes", lambda: 300 * 10**6)
    np.save("x.npy", np.zeros((1, 64, 64, 64), np.float32))
    model, _ = network(3)
    large = run(model, "x.npy", "large.zarr", workers=1, progress=False)
    assert large.chunks == (1, 64, 64, 64)
    with pytest.raises(MemoryLimitError, match="must be at least") as caught:
        run(model, "x.npy", "y.zarr", memory="1MB", workers=1, progress=False)
    least = int(str(caught.value).partition("at least ")[2].partition(" bytes")[0].replace(",", ""))
    memory = (least + large.needed_bytes) // 2
    small = run(model, "x.npy", "y.zarr", memory=memory, workers=1, progress=False)
    assert max(small.chunks[1:]) > 12
    assert min(small.chunks[1:]) < 64
    assert small.needed_bytes <= memory
    assert read().tobytes() == read("large.zarr").tobytes()


def test_sizes_that_no_program_has_are_cut_before_any_is_made():
    source = zarr.create_array({}, shape=(1, 2048, 2048, 2048), chunks=(1, 32, 32, 32), dtype="u1")
    target = zarr.storage.MemoryStore()
    with pytest.raises(MemoryLimitError, match="must be at least"):
        run(network(3)[0], source, target, tile=2048, memory="4GB", progress=False)
    told = []

    def stop(done, every):
        told.append(every)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(network(3)[0], source, target, memory="480MB", workers=2, progress=stop)
    assert told[0] > 1000
    assert max(zarr.open_array(target).chunks) <= 256


def test_two_workers_get_a_tile_each():
    np.save("x.npy", np.zeros((1, 64, 64), np.float32))
    assert run(network(2)[0], "x.npy", "y.zarr", workers=2, progress=False).computed == 2


def test_a_value_within_the_model_may_be_the_input_or_the_output():
    maker = Maker(2, 0)
    middle = maker.add("Relu", maker.conv("x", 1, 3))
    maker.conv(middle, 3, 2)
    graph = maker.graph(maker.nodes[-1].outputs[0])
    model = model_of(graph, 2)
    x = np.random.default_rng(0).standard_normal((3, 20, 20)).astype(np.float32)
    np.save("x.npy", x)
    run(model, "x.npy", "y.zarr", input_name=middle, tile=8, progress=False)
    assert read().shape == (2, 20, 20)
    with pytest.raises(ShapeError, match="so 3 channels; the network takes 1"):
        run(model, "x.npy", "z.zarr", output_name=middle, tile=8, progress=False)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"tile": 0}, ParameterError, "tile"),
        ({"tile": (8, 8, 8)}, ParameterError, "one size, or 2"),
        ({"tile": "large"}, ParameterError, 'must be "auto"'),
        ({"input_name": "z"}, ParameterError, "is no value of the model"),
        ({"output_name": "z"}, ParameterError, "is no value of the model"),
        ({"memory": "much"}, ParameterError, "memory"),
    ],
)
def test_bad_arguments(arguments, error, words):
    np.save("x.npy", np.ones((1, 24, 24), np.float32))
    with pytest.raises(error, match=words):
        run(network(2)[0], "x.npy", "y.zarr", progress=False, **arguments)
    assert not Path("y.zarr").exists()


def test_sources_that_a_network_does_not_take():
    model, _ = network(2)
    for shape, words in (((9,), "takes 2 axes in space"), ((1, 1, 1, 8, 8), "takes 2 axes")):
        np.save("x.npy", np.ones(shape, np.float32))
        with pytest.raises(ShapeError, match=words):
            run(model, "x.npy", "y.zarr", progress=False)
    np.save("x.npy", np.ones((1, 22, 24), np.float32))  # halved twice, then joined with itself
    with pytest.raises(ShapeError, match="pad the source"):
        run(model, "x.npy", "y.zarr", progress=False)
    np.save("x.npy", np.ones((1, 24, 24), np.complex64))
    with pytest.raises(DTypeError, match="real numbers"):
        run(model, "x.npy", "y.zarr", progress=False)
    assert not Path("y.zarr").exists()


def test_operators_that_see_everything_are_named():
    np.save("x.npy", np.ones((1, 24, 24), np.float32))
    for operator in ("GlobalAveragePool", "InstanceNormalization"):
        maker = Maker(2, 0)
        x = maker.conv("x", 1, 2)
        given = (x,) if operator[0] == "G" else (x, maker.weights(2), maker.weights(2))
        y = maker.add("Mul", x, maker.add(operator, *given))
        with pytest.raises(UnsupportedError, match=operator) as caught:
            run(model_of(maker.graph(y), 2), "x.npy", "y.zarr", progress=False)
        assert operator.lower() in str(caught.value)


def test_metadata_of_ome_zarr_follow_the_strides():
    maker = Maker(2, 0)
    y = maker.conv("x", 1, 2, 4, 2, pads=[1, 1, 1, 1])
    group = zarr.create_group("x.zarr")
    group.create_array("0", shape=(24, 24), chunks=(8, 8), dtype="float32")
    steps = [{"type": "scale", "scale": [3.0, 5.0]}]
    described = {
        "axes": [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}],
        "datasets": [{"path": "0", "coordinateTransformations": steps}],
    }
    group.attrs["ome"] = {"version": "0.5", "multiscales": [described]}
    run(model_of(maker.graph(y), 2), "x.zarr/0", "y.zarr", tile=8, progress=False)
    (told,) = zarr.open_group("y.zarr").attrs["ome"]["multiscales"]
    assert [axis["name"] for axis in told["axes"]] == ["c", "y", "x"]
    moves = told["datasets"][0]["coordinateTransformations"]
    assert moves[0]["scale"] == [1.0, 6.0, 10.0]
    assert moves[1]["translation"] == [0.0, 1.5, 2.5]  # between cells 0 and 1


def test_the_command_line_runs_a_model_in_tiles(capsys):
    model, graph = network(2)
    onnx.save(model, "net.onnx")
    x = np.random.default_rng(0).standard_normal((1, 24, 32)).astype(np.float32)
    np.save("x.npy", x)
    words = ["run", "net.onnx", "x.npy", "-o", "y.zarr", "--tile", "12x16"]
    assert main(words) == 0
    assert "4 chunks computed" in capsys.readouterr().out
    assert read().tobytes() == whole_of(graph, x[np.newaxis]).tobytes()
    assert main([*words[:-1], "auto"]) == 0  # goes on with the tiles that are there
    assert "nothing was computed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tile", "12", "-s", "2"], "--stride excludes --tile"),
        (["--tile", "12", "--stream"], "--stream excludes --tile"),
        (["--tile", "12", "--compare"], "--compare excludes --tile"),
        (["--tile", "x"], "whole number"),
        (["--tile", "0"], "tile"),
        (["--memory", "1GB"], "--memory is for volumes"),
    ],
)
def test_options_that_do_not_go_together(words, message, capsys):
    onnx.save(network(2)[0], "net.onnx")
    np.save("x.npy", np.ones((1, 24, 24), np.float32))
    assert main(["run", "net.onnx", "x.npy", "-o", "y.zarr", *words]) != 0
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("y.zarr").exists()


def test_tiles_need_one_input_and_an_output(capsys):
    onnx.save(network(2)[0], "net.onnx")
    assert main(["run", "net.onnx", "--tile", "12", "-o", "y.zarr"]) != 0
    assert "needs MODEL and one INPUT" in " ".join(capsys.readouterr().err.split())
    assert main(["run", "net.onnx", "x.npy", "--tile", "12"]) != 0
    assert "--tile needs -o/--output" in " ".join(capsys.readouterr().err.split())
