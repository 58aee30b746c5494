"""The examples do what they say, on small inputs."""

import numpy as np
import pytest

from loading import example
from tconv.errors import ParameterError
from tconv.images import read_picture, write_picture
from tconv.nn.activations import LeakyReLU
from tconv.nn.conv import Conv2d, ConvTranspose2d
from tconv.nn.layer import Sequential

double_photo = example("double_photo")
train_autoencoder = example("train_autoencoder")


# ---- double_photo --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file like the pretrained one, of noise."""
    rng = np.random.default_rng(0)
    arrays = {}
    channels = double_photo.CHANNELS
    for n in range(6):
        shape = (channels[n + 1], channels[n], 3, 3)
        arrays[f"conv{n + 1}/W"] = rng.normal(0, (9 * channels[n]) ** -0.5, shape)
        arrays[f"conv{n + 1}/b"] = np.zeros(channels[n + 1])
    arrays["conv7/W"] = rng.normal(0, 1 / 32, (256, 3, 4, 4))
    path = tmp_path_factory.mktemp("weights") / "noise.npz"
    np.savez(path, **{name: value.astype(np.float32) for name, value in arrays.items()})
    return path


@pytest.fixture
def photo(tmp_path):
    """A file of 36x41 pixels: a ramp, which bicubic interpolation gives back well."""
    pixels = np.add.outer(np.arange(36), np.arange(41)).astype(np.uint8)
    path = tmp_path / "ramp.png"
    write_picture(path, np.stack([pixels, pixels + 50, 2 * pixels]))
    return path


def exact_network(channels=3):
    """Layers of UpConv-7's sizes in which no number is ever rounded."""
    rng = np.random.default_rng(0)
    layers = []
    for _ in range(6):
        layers += [Conv2d(channels, channels, 3, dtype="float64"), LeakyReLU(0.5)]
    layers.append(ConvTranspose2d(channels, 3, 4, stride=2, padding=3, dtype="float64"))
    network = Sequential(*layers)
    for parameter in network.parameters():
        parameter.value = rng.integers(-2, 3, parameter.shape)
    return network


def test_the_worked_example_is_printed(capsys):
    double_photo.print_worked_example()
    lines = capsys.readouterr().out.splitlines()
    assert " [0 1 2 0 3 4 0 0 0]" in lines
    assert "[ 37 121  94 178 500 342 201 499 308]" in lines
    assert " [178 500 342]         [ 78 255 168]" in lines


@pytest.mark.parametrize("tile", [1, 2, 3, 5, 100])
def test_tiles_give_the_whole_picture(tile):
    network = exact_network()
    picture = np.random.default_rng(1).integers(-3, 4, (3, 5, 7)).astype(np.float64)
    done = []
    tiled = double_photo.double(network, picture, tile, lambda: done.append(tile))
    around = ((0, 0), (double_photo.MARGIN,) * 2, (double_photo.MARGIN,) * 2)
    assert np.array_equal(tiled, network(np.pad(picture, around, mode="edge")))
    assert tiled.shape == (3, 10, 14)
    assert len(done) == len(double_photo.corners(5, 7, tile)) == -(-5 // tile) * -(-7 // tile)


def test_the_network_has_the_layers_of_upconv7(weights):
    network = double_photo.upconv7(weights)
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    assert len(network) == 13
    assert shapes["conv1.weight"] == (16, 3, 3, 3)
    assert shapes["conv6.bias"] == (256,)
    assert shapes["conv7.weight"] == (256, 3, 4, 4)
    assert "conv7.bias" not in shapes
    with np.load(weights) as file:
        for name, parameter in network.named_parameters():
            layer, _, kind = name.partition(".")
            assert np.array_equal(
                parameter.value, file[f"{layer}/{'W' if kind == 'weight' else 'b'}"]
            )


def test_float32_tiles_differ_by_rounding_only(weights):
    network = double_photo.upconv7(weights)
    picture = np.random.default_rng(1).random((3, 9, 8)).astype(np.float32)
    whole, tiled = (double_photo.double(network, picture, tile) for tile in (9, 4))
    assert whole.dtype == tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, **{"conv1/W": np.zeros((16, 1, 3, 3))})
    with pytest.raises(ParameterError, match=r"conv1\.weight has shape \(16, 1, 3, 3\)"):
        double_photo.upconv7(path)


def test_psnr():
    photo = np.random.default_rng(0).integers(0, 255, (3, 40, 30)).astype(np.uint8)
    assert double_photo.psnr(photo, photo) == float("inf")
    assert double_photo.psnr(photo, photo + 1) == pytest.approx(20 * np.log10(255))
    framed = photo + 1
    framed[:, 8:-8, 8:-8] -= 1
    assert double_photo.psnr(photo, framed) == float("inf")  # a border of 8 pixels does not count


def test_pictures_become_numbers_and_pictures_again():
    picture = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    values = double_photo.as_floats(picture)
    assert (values.dtype, values.min(), values.max()) == (np.float32, 0, 1)
    assert np.array_equal(double_photo.as_picture(values), picture)
    assert double_photo.as_picture(np.array([-0.5, 1.5])).tolist() == [0, 255]


def test_the_photo_is_cropped_to_even_sizes(photo):
    assert double_photo.read_photo(photo).shape == (3, 36, 40)
    assert double_photo.read_photo(None).shape == (3, 300, 450)


def test_halving_and_doubling_keep_a_plain_colour():
    plain = np.full((3, 20, 30), 77, np.uint8)
    small = double_photo.resize(plain, 10, 15)
    assert small.shape == (3, 10, 15)
    assert np.array_equal(double_photo.resize(small, 20, 30), plain)


def test_the_detail_is_where_the_contrasts_are():
    photo = np.zeros((3, 60, 80), np.uint8)
    photo[:, 40:50, 50:70:2] = 255
    assert double_photo.busiest(photo, 20, 30) in {(30, 40), (30, 50), (40, 40)}


def test_the_demo_says_plainly_what_is_closer(weights, photo, tmp_path, capsys):
    output = tmp_path / "new" / "sheet.png"
    options = ["--weights", weights, "--photo", photo, "--output", output, "--tile", "8"]
    double_photo.main([str(option) for option in options])
    printed = capsys.readouterr().out
    assert "PSNR against the photo: bicubic" in printed
    assert "Bicubic comes closer by" in printed  # the network's weights are noise
    assert str(output) in printed
    assert read_picture(output).shape == (3, 2 * 34 + 36 * 2 + 12, 12 + 3 * (40 + 12))
    assert "network comes closer by 1.50 dB" in double_photo.verdict(30.0, 31.5)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--weights", "nowhere.npz", "nowhere.npz is missing: run `make demo`, which fetches it."),
        ("--tile", "0", "--tile=0 must be at least 1"),
    ],
)
def test_wrong_options_are_explained(option, value, message, capsys):
    with pytest.raises(SystemExit) as caught:
        double_photo.main([option, value])
    assert message in f"{caught.value} {capsys.readouterr().err}"


def test_a_tiny_photo_is_refused(weights, tmp_path):
    write_picture(tmp_path / "tiny.png", np.zeros((3, 17, 40), np.uint8))
    with pytest.raises(SystemExit, match="must have more than 16 pixels"):
        double_photo.main(["--weights", str(weights), "--photo", str(tmp_path / "tiny.png")])


# ---- train_autoencoder ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return train_autoencoder.read_digits()


def test_the_digits_are_split_once_and_for_all(digits):
    assert digits.train.shape == (1437, 1, 8, 8)
    assert digits.test.shape == (360, 1, 8, 8)
    assert digits.train.dtype == np.float32
    assert digits.train.min() == 0
    assert digits.train.max() == 1
    assert set(digits.labels) == set(range(10))
    assert np.array_equal(digits.test, train_autoencoder.read_digits().test)


def test_every_image_is_in_one_batch():
    found = list(train_autoencoder.batches(150, np.random.default_rng(0)))
    assert [len(batch) for batch in found] == [64, 64, 22]
    assert sorted(np.concatenate(found)) == list(range(150))


def test_the_loss_goes_down_and_repeats(digits):
    few = digits._replace(train=digits.train[:256], test=digits.test[:64])
    runs = [train_autoencoder.train(train_autoencoder.autoencoder(), few, 3) for _ in range(2)]
    assert runs[0] == runs[1]
    for curve in runs[0]:
        assert curve[0] > curve[1] > curve[2]


def test_principal_components_give_back_what_is_linear(digits):
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(train_autoencoder.CODE, 64))
    train, test = (
        (1 + rng.normal(size=(n, len(directions))) @ directions).reshape(n, 1, 8, 8)
        for n in (90, 5)
    )
    again = train_autoencoder.by_principal_components(digits._replace(train=train, test=test))
    np.testing.assert_allclose(again, test)


def test_the_training_draws_its_picture(tmp_path, capsys):
    output = tmp_path / "new" / "curves.png"
    train_autoencoder.main(["--epochs", "1", "--output", str(output)])
    assert "mean squared error on 360 test digits" in capsys.readouterr().out
    assert read_picture(output).std() > 20  # not a blank page
