"""Networks of the examples against PyTorch: the same outputs and the same learning."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.examples import in_torch
from loading import example
from tconv.nn.optim import SGD, Adam

double_photo = example("double_photo")
train_autoencoder = example("train_autoencoder")


def test_upconv7_doubles_a_photo_as_in_torch():
    if not double_photo.WEIGHTS.is_file():
        pytest.fail(f"{double_photo.WEIGHTS} is missing: run `make test-hosts`, which fetches it.")
    network = double_photo.upconv7(double_photo.WEIGHTS)
    photo = double_photo.read_photo(None)[:, 100:200, 120:260]
    picture = double_photo.as_floats(double_photo.resize(photo, 50, 70))
    margin = (double_photo.MARGIN,) * 2
    padded = np.pad(picture, ((0, 0), margin, margin), mode="edge")
    with torch.inference_mode():
        expected = in_torch(network)(torch.from_numpy(padded[np.newaxis]))[0].numpy()
    ours = double_photo.double(network, picture, tile=32)
    assert ours.shape == expected.shape == (3, 100, 140)
    assert ours.max() > 0.5  # the photo, not a black page
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)
    # A wrong scale, order of channels or margin would not leave it this close to the photo.
    assert double_photo.psnr(photo, double_photo.as_picture(ours)) > 30


@pytest.mark.parametrize(
    ("kind", "twin_kind", "settings"),
    [
        (Adam, torch.optim.Adam, {"lr": train_autoencoder.LEARNING_RATE}),
        (SGD, torch.optim.SGD, {"lr": 0.2, "momentum": 0.9}),
    ],
)
def test_the_autoencoder_learns_as_in_torch(kind, twin_kind, settings):
    digits = train_autoencoder.read_digits("float64")
    network = train_autoencoder.autoencoder(dtype="float64")
    twin = in_torch(network)
    ours, theirs = (
        make(each.parameters(), **settings) for make, each in ((kind, network), (twin_kind, twin))
    )
    rng = np.random.default_rng(0)
    order = [batch for _ in range(3) for batch in train_autoencoder.batches(1437, rng)][:50]
    losses = []
    for batch in order:
        images = digits.train[batch]
        loss = train_autoencoder.step(network, ours, images)
        theirs.zero_grad()
        target = torch.from_numpy(images)
        expected = nn.functional.mse_loss(twin(target), target)
        expected.backward()
        theirs.step()
        losses.append((loss, expected.item()))
    found, expected = np.transpose(losses)
    assert len(found) == 50
    assert found[-1] < found[0] / 2
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)


ROOT = Path(__file__).parents[2]
NETWORKS = ["vgg16", "efficientnet", "onet", "stream_voice"]  # that need data


def typed(words, folder, **environment):
    """What a person sees who types this in a folder."""
    return subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT)} | environment,
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("lacks", ["weights", "packages"])
def test_an_example_that_lacks_something_says_what_to_type(tmp_path, name, lacks):
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / f"examples/{name}.py", tmp_path / "examples")
    alone = ["-S", "-E"] if lacks == "packages" else []  # without the site's packages
    done = typed([sys.executable, *alone, f"examples/{name}.py"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("make "))
    known = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^([A-Z0-9]+) := (\S+)$", known, re.MULTILINE))
    known = re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), known)
    for target in line.split()[1:]:
        assert re.search(rf"^{re.escape(target)}:", known.replace("%", "examples"), re.MULTILINE)


def test_the_command_that_an_example_prints_runs_as_it_stands(tmp_path):
    written = typed([sys.executable, str(ROOT / "examples/onet.py")], tmp_path)
    assert written.returncode == 0, written.stderr
    command = written.stdout.splitlines()[-1]
    done = typed(shlex.split(command), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rule gradient, as rule 'deconvnet' is defined for ReLU only, found PRelu" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["face.html"]
