"""Try the installed wheel; `make check` runs this in an environment that has nothing else."""

import importlib.metadata
import subprocess
import sys
from pathlib import PurePosixPath

import numpy as np

import tconv
from tconv import engine

PAGE = ("explainer.html", "explainer.css", "explainer.js", "scene.js", "facts.js")


def check_the_files():
    version = importlib.metadata.version("tconv")
    assert version == tconv.__version__, (version, tconv.__version__)
    info = f"tconv-{version}.dist-info"
    files = {PurePosixPath(file) for file in importlib.metadata.files("tconv")}
    own = ("tconv", info)
    strangers = sorted(
        str(file)
        for file in files
        if file.parts[0] not in own and file.parent.name not in ("bin", "Scripts")
    )
    assert not strangers, f"the wheel also installs {strangers}"
    page = (f"tconv/explainer/page/{name}" for name in PAGE)
    for name in ("tconv/py.typed", "tconv/__init__.py", f"{info}/licenses/LICENSE", *page):
        assert PurePosixPath(name) in files, f"the wheel lacks {name}"
    assert tconv.__file__.startswith(sys.prefix), f"tried {tconv.__file__}, not the wheel"


def check_the_worked_example():
    w = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    y = np.array([[[[37.0, 47.0], [67.0, 77.0]]]])
    x = tconv.conv_transpose(y, w)
    assert x.tolist() == [[[[37, 121, 94], [178, 500, 342], [201, 499, 308]]]], x
    assert tconv.conv(np.arange(1.0, 10.0).reshape(1, 1, 3, 3), w).tolist() == y.tolist()


def check_the_machine_code():
    geometry = tconv.Geometry.of((1, 2, 9), (2, 3, 4), stride=2)
    assert engine.serves(geometry, "y", "float32")
    x, w = np.ones(geometry.x_shape, np.float32), np.ones(geometry.weight_shape, np.float32)
    y = engine.contract(geometry, "y", x, w)
    assert np.array_equal(y, tconv.portable.contract.contract(geometry, "y", x, w)), y


def check_the_command():
    command = [sys.executable, "-I", "-m", "tconv"]
    done = subprocess.run([*command, "shape", "64", "--to", "128"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "4  2  1   0  2           even" in done.stdout, done.stdout
    done = subprocess.run([*command, "run", __file__], capture_output=True, text=True)
    assert done.returncode == 2, done
    assert done.stderr.startswith("error[missing-extra]: The ONNX tools need onnx"), done.stderr


def check_the_page():
    page = tconv.explain().html()
    assert page.startswith("<!doctype html>"), page[:80]
    assert "/*{" not in page, "a part of the page is missing"
    assert tconv.explain().facts()["y"][1] == [178, 500, 342]


def check_the_message_without_pillow():
    from tconv.images import read_picture

    try:
        read_picture("none.png")
    except ImportError as error:
        message = str(error)
    assert message == "Reading and writing pictures needs Pillow: pip install pillow.", message


if __name__ == "__main__":
    check_the_files()
    check_the_worked_example()
    check_the_machine_code()
    check_the_command()
    check_the_page()
    check_the_message_without_pillow()
    print(f"tconv {tconv.__version__}: the installed wheel is right")
