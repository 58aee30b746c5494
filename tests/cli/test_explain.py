"""Verb `explain`: a page or a picture of sizes, or of a layer of a model."""

import json

import numpy as np
import pytest
from onnx import helper, save

import tconv
from tconv.cli import main
from tconv.nn.conv import ConvTranspose


def model(path, *, size=3):
    weight = np.arange(2 * 3 * size * size, dtype=np.float32).reshape(2, 3, size, size)
    layer = ConvTranspose(2, 3, (size, size), stride=2, padding=1, output_padding=1, bias=False)
    layer.load_state_dict({"weight": weight})
    save(layer.to_onnx(), path)
    return weight


def test_the_worked_example_is_the_default(command, tmp_path):
    done = command("explain", "-o", "page.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tconv.explain()}\nwritten to page.html\n"
    assert (tmp_path / "page.html").read_text("utf-8") == tconv.explain().html()
    again = command("explain", "-o", "page.html")
    assert again.returncode == 2
    assert "the file exists already" in again.stderr
    assert command("explain", "-f", "-o", "page.html").returncode == 0


def test_sizes_become_ramps(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    line = "explain -i 2x3 -k 3x2 -s 2 -p 1:0x0 -d 1x2 --op 1x0 --json -o a.svg"
    assert main(line.split()) == 0
    found = json.loads(capsys.readouterr().out)["result"]
    expected = tconv.explain(
        np.arange(1, 7).reshape(2, 3), np.arange(1, 7).reshape(3, 2), stride=2,
        padding=((1, 0), 0), dilation=(1, 2), output_padding=(1, 0),
    )  # fmt: skip
    assert found == {"written": "a.svg", "facts": json.loads(json.dumps(expected.facts()))}
    assert (tmp_path / "a.svg").read_text("utf-8") == expected.svg()


def test_one_axis(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "--rank", "1", "-k", "3", "-s", "2", "-o", "a.gif"]) == 0
    assert "3 by a kernel of 3 gives 7" in capsys.readouterr().out


def test_a_kernel_of_a_model(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    weight = model("up.onnx")
    assert main(["explain", "up.onnx", "--pair", "1,2", "-i", "2", "--json", "-o", "a.html"]) == 0
    facts = json.loads(capsys.readouterr().out)["result"]["facts"]
    assert facts["w"] == weight[1, 2].tolist()
    assert facts["stride"] == [2, 2]
    assert facts["padding"] == [[1, 1], [1, 1]]
    assert facts["output_padding"] == [1, 1]
    assert main(["explain", "up.onnx", "--layer", "ConvTranspose", "-o", "b.html"]) == 0
    assert main(["explain", "up.onnx", "--layer", "0", "-o", "c.html"]) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "error[usage]: -o/--output is missing"),
        ("-o a.pdf", "must end in one of .html, .svg, .png, .gif, not '.pdf'"),
        ("-k 8 -o a.svg", "option -k/--kernel"),
        ("-k 999999999 -o a.svg", "option -k/--kernel"),
        ("-s 0 -o a.svg", "option -s/--stride"),
        ("--layer 1 -o a.svg", "--layer needs MODEL"),
        ("up.onnx -k 3 -o a.svg", "--kernel does not go with MODEL"),
        ("up.onnx --layer ConvTranpose -o a.svg", "did you mean 'ConvTranspose'?"),
        ("up.onnx --layer 1 -o a.svg", "there is no ConvTranspose '1', but 0 ConvTranspose"),
        ("up.onnx --pair 2,0 -o a.svg", "--pair 2,0 is none of the 2 by 3 kernels"),
        ("big.onnx -o a.svg", "model 'big.onnx', node 'ConvTranspose'"),
        ("flat.onnx -o a.svg", "the model has no ConvTranspose"),
        ("none.onnx -o a.svg", "error[file]: No such file"),
    ],
)
def test_mistakes(monkeypatch, tmp_path, capsys, line, said):
    monkeypatch.chdir(tmp_path)
    model("up.onnx")
    model("big.onnx", size=8)
    value = helper.make_tensor_value_info("x", 1, [1])
    save(helper.make_model(helper.make_graph([], "none", [value], [value])), "flat.onnx")
    assert main(["explain", *line.split()]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "a.svg").exists()
