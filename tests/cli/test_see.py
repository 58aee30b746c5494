"""Verb `see`: a figure, a page, arrays, or a list of layers."""

import json
import re

import numpy as np
import pytest
from onnx import save
from PIL import Image

from networks import proto_of
from strategies import integers_like
from tconv.cli import main

NODES = [
    ("Conv", "image a", "b1/conv", {}), ("Relu", "b1/conv", "b1/relu", {}),
    ("Conv", "b1/relu b", "b2/conv", {}), ("Sigmoid", "b2/conv", "b2/act", {}),
]  # fmt: skip
STORED = {
    "a": integers_like((4, 3, 3, 3), "float32", 1, largest=3),
    "b": integers_like((2, 4, 2, 2), "float32", 2, largest=3),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Here lie net.onnx, photo.png and a folder of three pictures."""
    save(proto_of(NODES, STORED, (1, 3, 8, 8)), tmp_path / "net.onnx")
    (tmp_path / "photos").mkdir()
    (tmp_path / "empty").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "photo.png")
    for n in range(3):
        Image.fromarray(pixels[n + 1]).save(tmp_path / f"photos/{n}.png")
    Image.fromarray(pixels.reshape(16, 16, 3)).save(tmp_path / "large.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_image(command, folder):
    done = command("see", "net.onnx", "photo.png", "--top", "2")
    assert done.returncode == 0
    assert done.stderr == ""
    head, *rows, model, ledger, warning, empty, written = done.stdout.splitlines()
    assert head.split() == ["feature", "image", "unit", "activation", "sees", "min", "max"]
    assert len(rows) == 2
    assert model.startswith("net, layer b1/relu, rule deconvnet; forward by ONNX Runtime")
    assert ledger == "reversed 2 nodes: Conv×1 filter, Relu×1 rectify"
    assert warning.startswith("these rules largely recover image edges whatever the weights")
    assert (empty, written) == ("", "wrote see_net_b1_relu.png")
    assert (folder / "see_net_b1_relu.png").is_file()
    again = command("see", "net.onnx", "photo.png")
    assert again.returncode == 2
    assert "the file exists already; " not in again.stderr  # that is the line of help
    assert again.stderr.splitlines()[2] == "  help: pass -f to overwrite it, or choose another"


GOLDEN = """\
feature  image       unit  activation  sees            min   max  sanity
      3  photo.png  3,5,1       14.61  3×3 at (6,2)  -43.8  43.8    0.40
      0  photo.png  0,2,1       9.875  3×3 at (3,2)  -29.6  29.6    0.00
net, layer b1/relu, rule deconvnet; forward by ONNX Runtime, back by tconv
reversed 2 nodes: Conv×1 filter, Relu×1 rectify
sanity: rank correlation of |projection| with that of shuffled weights
these rules largely recover image edges whatever the weights (Nie 2018, Adebayo{}\
2018); compare with shuffled weights (sanity)

wrote see_net_b1_relu.png
"""
GOLDEN_LIST = """\
index  layer    op       shape    sees  jump  rule deconvnet
    0  b1/conv  Conv     1×4×6×6   3×3   1×1  ok
    1  b1/relu  Relu     1×4×6×6   3×3   1×1  ok
    2  b2/conv  Conv     1×2×5×5   4×4   1×1  ok
    3  b2/act   Sigmoid  1×2×5×5   4×4   1×1  rule 'deconvnet' is defined for{}\
ReLU only, found Sigmoid
4 layers, 3 that rule deconvnet can look at
default layer: b1/relu
"""


@pytest.mark.parametrize(
    ("columns", "note", "reason"), [("80", "\n", "\n" + 46 * " "), ("200", " ", " ")]
)
def test_what_is_printed(command, folder, columns, note, reason):
    done = command("see", "net.onnx", "photo.png", "--top", "2", "--sanity", COLUMNS=columns)
    assert done.stdout == GOLDEN.format(note)
    done = command("see", "net.onnx", "--list", COLUMNS=columns)
    assert done.stdout == GOLDEN_LIST.format(reason)


def test_the_list(folder, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["see", "net.onnx", "--list"]) == 0
    assert capsys.readouterr().out == (
        "index  layer    op       shape    sees  jump  rule deconvnet\n"
        "    0  b1/conv  Conv     1×4×6×6   3×3   1×1  ok\n"
        "    1  b1/relu  Relu     1×4×6×6   3×3   1×1  ok\n"
        "    2  b2/conv  Conv     1×2×5×5   4×4   1×1  ok\n"
        "    3  b2/act   Sigmoid  1×2×5×5   4×4   1×1  rule 'deconvnet' is defined for ReLU only, "
        "found Sigmoid\n"
        "4 layers, 3 that rule deconvnet can look at\n"
        "default layer: b1/relu\n"
    )
    assert main(["see", "net.onnx", "--list", "--rule", "gradient", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verb"], told["schema"]) == ("see", 1)
    assert [row["reason"] for row in told["result"]["layers"]] == [None] * 4


def test_numbers_and_options(folder, capsys):
    line = (
        "see net.onnx photos photo.png --layer 3 --rule gradient --feature 1,0 --top 2 --norm "
        "minmax --scale figure --sanity --no-crop --range 0,0.1 --mean 0.01,0.02,0.03 "
        "--std 2 --json -o out.npz"
    )
    assert main(line.split()) == 0
    told = json.loads(capsys.readouterr().out)["result"]
    assert told["written"] == "out.npz"
    assert [tile["feature"] for tile in told["tiles"]] == [1, 1, 0, 0]
    assert {tile["image"] for tile in told["tiles"]} <= {"0.png", "1.png", "2.png", "photo.png"}
    assert all(tile["box"] == [[0, 7], [0, 7]] for tile in told["tiles"])
    assert len({tuple(tile["range"]) for tile in told["tiles"]}) == 1
    assert all(-1 <= tile["sanity"] <= 1 for tile in told["tiles"])
    with np.load("out.npz") as file:
        assert file["projection"].shape == (4, 3, 8, 8)


def test_pages_and_sizes(folder, capsys):
    assert (
        main(["see", "net.onnx", "large.png", "--size", "8x8", "--unit", "3,2,1", "-o", "a.html"])
        == 0
    )
    assert "wrote a.html" in capsys.readouterr().out
    assert (folder / "a.html").read_text("utf-8").startswith("<!doctype html>")


def test_a_rule_that_nobody_chose_gives_way(folder, capsys):
    """A line says so, and the numbers are those of the rule that the line names."""
    told, line = [], ["see", "net.onnx", "photo.png", "--layer", "3", "--range", "0,0.01", "-f"]
    for more in ([], ["--rule", "gradient"]):
        line = [
            "see",
            "net.onnx",
            "photo.png",
            "--layer",
            "b2/act",
            "--range",
            "0,0.01",
            "--json",
            "-f",
        ]
        assert main([*line, *more]) == 0
        told.append(json.loads(capsys.readouterr().out)["result"])
    why = "rule gradient, as rule 'deconvnet' is defined for ReLU only, found Sigmoid"
    assert [each.pop("why") for each in told] == [why, None]
    assert told[0] == told[1]
    assert (
        main(["see", "net.onnx", "photo.png", "--layer", "b2/act", "--range", "0,0.01", "-f"]) == 0
    )
    assert capsys.readouterr().out.count(why) == 1


def test_a_rule_that_is_not_defined(command, folder):
    done = command("see", "net.onnx", "photo.png", "--layer", "b2/act", "--rule", "deconvnet")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "error[rule-activation]: rule 'deconvnet' is defined for ReLU only, found Sigmoid",
        '  at: net, node 3 "node b2/act", between layer "b2/act" and the image',
        "  help: use --rule gradient, or a layer below it (--list shows which)",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("net.onnx", "error[usage]: IMAGE is missing"),
        ("none.onnx photo.png", "error[file]: No such file"),
        ("net.onnx phoot.png", "did you mean 'photo.png'?"),
        ("net.onnx photo.png -o a.jpg", "must end in one of .png, .html, .npz, not '.jpg'"),
        ("net.onnx photo.png -f -o photo.png", "would overwrite the model or an image"),
        ("net.onnx photo.png -o no/a.png", "there is no folder"),
        ("net.onnx photo.png --list", "IMAGE does not go with --list"),
        ("net.onnx --list --layer 1", "--layer does not go with --list"),
        ("net.onnx photo.png --layer b", "option --layer"),
        ("net.onnx photo.png --layer b1/rel", ""),
        ("net.onnx photo.png --feature 7", "option --feature"),
        ("net.onnx photo.png --unit 1,2", "option --unit"),
        ("net.onnx photo.png --rule guidde", "did you mean guided?"),
        ("net.onnx photo.png --norm zeros", "did you mean zero?"),
        ("net.onnx photo.png --mean 1,2", "option --mean"),
        ("net.onnx photo.png --class 1", "option --class"),
        ("net.onnx photo.png --class -1", "must be a whole number of 0 or more"),
        ("net.onnx --list --class 0", "--class does not go with --list"),
        ("net.onnx --list --layer 0", "--layer does not go with --list"),
        ("net.onnx photo.png --range 1", "option --range"),
        ("net.onnx photo.png --std 0", "option --std"),
        ("net.onnx large.png", "the image is 16x16, but the network takes 8x8"),
        ("photo.png photo.png", "error[model]: "),
        ("net.onnx empty", "holds none"),
    ],
)
def test_mistakes(folder, capsys, line, said):
    code = main(["see", *line.split()])
    found = capsys.readouterr().err
    assert code == (2 if said else 0)
    assert said in re.sub(r"\s+", " ", found)
    assert len(found.splitlines()) == (3 if said else 0)
    assert (folder / "see_net_b1_relu.png").exists() == (not said)


def test_help_loads_nothing(command):
    code = (
        "import sys; from tconv.cli import main; main(['see', '--help']); "
        "print(sorted({'numpy', 'onnx', 'rich', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    )
    assert command(code=code).stderr == "[]\n"


def test_an_output_without_a_name_is_no_layer(folder, capsys):
    """Nor is an input that is left out a signal because some output was."""
    from onnx import helper, numpy_helper

    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    nodes = [
        helper.make_node("MaxPool", ["image"], ["pooled", ""], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["pooled"], ["rectified"]),
        helper.make_node("Resize", ["rectified", "", "scales"], ["large"], mode="nearest"),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("image", 1, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("large", 1, None)], [scales],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=8), "pool.onnx")
    assert main(["see", "pool.onnx", "--list", "--json"]) == 0
    layers = json.loads(capsys.readouterr().out)["result"]["layers"]
    assert [(row["name"], row["reason"]) for row in layers] == [
        ("pooled", None), ("rectified", None), ("large", None)
    ]  # fmt: skip
    assert main(["see", "pool.onnx", "photo.png", "--layer", "large", "-o", "s.npz"]) == 0


@pytest.mark.parametrize("verb", ["see bad.onnx --list", "see bad.onnx photo.png", "run bad.onnx",
                                  "explain bad.onnx -o e.svg"])  # fmt: skip
def test_a_name_that_is_not_utf_8_is_damage(folder, capsys, verb):
    data = (folder / "net.onnx").read_bytes()
    (folder / "bad.onnx").write_bytes(data.replace(b"b1/relu", b"b1/\xff\xfelu"))
    assert main(verb.split()) == 2
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith("error[model]: ")
    assert first.endswith("is damaged: a word in it is not UTF-8")
