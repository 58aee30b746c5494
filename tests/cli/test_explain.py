"""Verb `explain`: a page or a picture of sizes, or of a layer of a model."""

import json

import numpy as np
import pytest
from onnx import helper, save
from PIL import Image

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


@pytest.mark.parametrize(
    ("line", "x", "w"),
    [
        (["-i", "37 47; 67 77"], [[37, 47], [67, 77]], None),
        (["-i", "1 2 3", "-k", "1/2 +3 −1.5"], [1, 2, 3], [0.5, 3, -1.5]),
        (["-i", "1 2 3", "-k", "2"], [1, 2, 3], [1, 2]),
        (["-i", "1 2 3", "-k", "2x2"], [[1, 2, 3]], [[1, 2], [3, 4]]),
        (["-i", "1 2 3", "-k", "1; 2"], [[1, 2, 3]], [[1], [2]]),
        (["-i", "1 2 3", "-k", "3", "--rank", "2"], [[1, 2, 3]], np.arange(1, 10).reshape(3, 3)),
        (["-i", "-1  2;3 4 ;", "-k", "-1"], [[-1, 2], [3, 4]], [[-1]]),
        (["-i", "1e3 0; 0 .5", "-k", "3x1"], [[1000, 0], [0, 0.5]], [[1], [2], [3]]),
        (["-i", "1 2|3 4", "-k", "1 1|1 -1|0 2|2 0"], [[1, 2], [3, 4]],
         [[[1, 1], [1, -1]], [[0, 2], [2, 0]]]),
        (["-i", "1 2; 3 4 | 5 6; 7 8"], [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], None),
        (["-k", "1 2; 3 4 | 5 6; 7 8"], None, [[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]]),
    ],
)  # fmt: skip
def test_own_numbers(monkeypatch, tmp_path, capsys, line, x, w):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *line, "-o", "a.html"]) == 0
    assert capsys.readouterr().out.startswith(str(tconv.explain(x, w)))
    assert (tmp_path / "a.html").read_text("utf-8") == tconv.explain(x, w).html()


@pytest.mark.parametrize("suffix", ["svg", "png", "html"])
@pytest.mark.parametrize(
    ("line", "chosen"),
    [
        ("--lens stamp --step 2", {"lens": "stamp", "step": 2}),
        ("--cell 1,2", {"cell": (1, 2)}),
        ("--lens conv -s 2 --cell 3x0", {"lens": "conv", "stride": 2, "cell": (3, 0)}),
        ("--lens channels --cell 0,1,1", {"lens": "channels", "cell": (0, 1, 1)}),
        ("--lens picture --cell 20,21", {"lens": "picture", "cell": (20, 21)}),
        ("--lens picture -k 4", {"lens": "picture", "w": np.ones((4, 4))}),
    ],
)
def test_a_lens_a_step_and_a_cell(monkeypatch, tmp_path, line, chosen, suffix):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *line.split(), "-o", f"a.{suffix}"]) == 0
    tconv.explain(**chosen).save(f"b.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_an_animation_of_a_lens(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", "--lens", "conv", "-o", "a.gif"]) == 0
    with Image.open("a.gif") as gif:
        assert gif.n_frames == 9


def test_channels_and_the_picture_of_a_model(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    weight = model("up.onnx")
    line = ["explain", "up.onnx", "--json"]
    assert main([*line, "--lens", "channels", "--pair", "0,1", "-o", "a.svg"]) == 0
    facts = json.loads(capsys.readouterr().out)["result"]["facts"]
    assert facts["channels"]["w"] == weight[:, 1:3].tolist()
    assert np.shape(facts["channels"]["x"]) == (2, 3, 3)
    assert main([*line, "--lens", "picture", "--pair", "1,2", "-o", "b.svg"]) == 0
    facts = json.loads(capsys.readouterr().out)["result"]["facts"]
    assert facts["w"] == weight[1, 2].tolist()
    assert facts["output_size"] == [96, 96]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["-i", "1,5 2"], "-i/--input must have no comma, which could end a number or begin its"),
        (["-i", "1,5"], "a fraction is 1.5 or 3/2"),
        (["-k", "3,4"], "write a size as 3 or 3x4"),
        (["-i", "1 2; 3"], "must have as many numbers in every row, and rows in every channel"),
        (["-i", "1 2 | 3"], "must have as many numbers in every row"),
        (["-i", "1 2 |"], "must have as many numbers in every row"),
        (["-i", "1 2 x"], "must be a number or a fraction, not 'x'"),
        (["-i", "1/0 2"], "must be a number or a fraction, not '1/0'"),
        (["-i", "three"], "must be a size or numbers, not 'three'"),
        (["-i", ""], "must be a size or numbers"),
        (["-i", " ; "], "option -i/--input"),
        (["-i", "1 2 3 4 5 6 7 8 9"], "option -i/--input"),
        (["-i", "1 2|3 4", "-k", "1 1|1 1|1 1"], "3 kernels are no multiple of 2 input channels"),
        (["--lens", "chanels"], "did you mean channels?"),
        (["--lens", "picture", "-i", "3"], "-i/--input does not go with --lens picture"),
        (["--step", "10"], "option --step"),
        (["--step", "0"], "option --step"),
        (["--cell", "3,0"], "option --cell"),
        (["--cell", "-1,0"], "option --cell"),
        (["--cell", "a"], "must be row and column, counted from 0, not 'a'"),
    ],
)
def test_numbers_and_places_that_are_not_clear(monkeypatch, tmp_path, capsys, line, said):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *line, "-o", "a.svg"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "help: " in error
    assert "--debug" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        (["-i", "1 2|3 4", "-k", "1 2; 3 4|1 2; 3 4", "--rank", "1"],
         "write as many rows as --rank 1 or 2 says"),
        (["-i", "1|2|3|4", "-k", "1|2|3|4"], "write at most 3 channels of each"),
        (["-i", "3x4", "--rank", "1"], "pass 1"),
        (["--lens", "picture", "-k", "1 2", "--rank", "1"], "leave --rank 1 out"),
        (["--lens", "picture", "-k", "1 2; 3 4", "--rank", "1"],
         "write one channel, and with --rank 1 one row"),
        (["--lens", "picture", "-k", "1 2|3 4"], "write one channel, and with --rank 1 one row"),
    ],
)  # fmt: skip
def test_advice_names_what_is_typed(monkeypatch, tmp_path, capsys, line, fix):
    monkeypatch.chdir(tmp_path)
    assert main(["explain", *line, "-o", "a.svg"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"  help: {fix}"


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
