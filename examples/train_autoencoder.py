"""Train a convolutional autoencoder on scikit-learn's handwritten digits, with tconv layers alone.

The encoder squeezes a digit of 8x8 pixels into 8 numbers, the decoder of transposed convolutions
draws it again from them. Principal components, the best that a linear map of as many numbers can
do, stand beside it for comparison. Needs the packages of `pip install '.[examples]'`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from tconv.nn.activations import ReLU
from tconv.nn.conv import Conv2d, ConvTranspose2d
from tconv.nn.layer import Sequential
from tconv.nn.optim import Adam, Optimiser

OUTPUT = Path(__file__).resolve().parents[1] / "out/train_autoencoder.png"

Images = NDArray[np.floating[Any]]  # (N, 1, 8, 8), values in [0, 1]

CODE = 8  # numbers that a digit of 64 pixels is squeezed into
BATCH = 64
LEARNING_RATE = 2e-3


class Digits(NamedTuple):
    """Images to learn from, images to judge by, and which digits the latter show."""

    train: Images
    test: Images
    labels: NDArray[np.int64]


class Curves(NamedTuple):
    """Mean squared errors after every epoch."""

    train: list[float]
    test: list[float]


def read_digits(dtype: str = "float32") -> Digits:
    """Return a fifth of the 1,797 digits for judging, the same ones every time."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images / 16)[:, np.newaxis].astype(dtype)  # (N, 1, 8, 8)
    train, test, _, labels = train_test_split(
        images, data.target, test_size=0.2, random_state=0, stratify=data.target
    )
    return Digits(train, test, labels)


def autoencoder(seed: int = 0, dtype: str = "float32") -> Sequential:
    """Encoder 8x8 -> 4x4 -> 2x2 -> 8 numbers, and decoder back again."""
    rng = np.random.default_rng(seed)
    same: dict[str, Any] = {"dtype": dtype, "rng": rng}
    return Sequential(
        Conv2d(1, 16, 3, stride=2, padding=1, **same),
        ReLU(),
        Conv2d(16, 32, 3, stride=2, padding=1, **same),
        ReLU(),
        Conv2d(32, CODE, 2, **same),
        ConvTranspose2d(CODE, 32, 2, **same),
        ReLU(),
        ConvTranspose2d(32, 16, 4, stride=2, padding=1, **same),
        ReLU(),
        ConvTranspose2d(16, 1, 4, stride=2, padding=1, **same),
    )


def batches(count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers 0 to count - 1 in random order, in batches."""
    order = rng.permutation(count)
    for start in range(0, count, BATCH):
        yield order[start : start + BATCH]


def mean_squared_error(a: Images, b: Images) -> float:
    return float(np.mean((a - b) ** 2))


def step(network: Sequential, optimiser: Optimiser, images: Images) -> float:
    """Improve the network by one batch; return the mean squared error before."""
    network.zero_gradients()
    error = network(images) - images
    network.backward(2 / error.size * error)
    optimiser.step()
    return float(np.mean(error**2))


def train(network: Sequential, digits: Digits, epochs: int, seed: int = 0) -> Curves:
    rng = np.random.default_rng(seed)
    optimiser = Adam(network.parameters(), lr=LEARNING_RATE)
    curves = Curves([], [])
    for _ in track(range(epochs), "training"):
        for batch in batches(len(digits.train), rng):
            step(network, optimiser, digits.train[batch])
        for curve, images in zip(curves, (digits.train, digits.test), strict=True):
            curve.append(mean_squared_error(network.predict(images), images))
    return curves


def by_principal_components(digits: Digits) -> Images:
    """Test images as the best linear code of equal size gives them back."""
    flat, test = (images.reshape(len(images), -1) for images in (digits.train, digits.test))
    mean = flat.mean(axis=0)
    directions = np.linalg.svd(flat - mean, full_matrices=False)[2][:CODE]
    return ((test - mean) @ directions.T @ directions + mean).reshape(digits.test.shape)


def plot(path: Path, digits: Digits, nonlinear: Images, linear: Images, curves: Curves) -> None:
    """Draw the errors over the epochs, and under one test digit of each kind what became of it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(2, 3))

    axes = left.subplots()
    epochs = range(1, len(curves.train) + 1)
    axes.plot(epochs, curves.train, label="autoencoder, training digits")
    axes.plot(epochs, curves.test, label="autoencoder, test digits")
    level = mean_squared_error(linear, digits.test)
    axes.axhline(level, color="grey", linestyle="--", label="principal components, test digits")
    axes.set(xlabel="epoch", ylabel="mean squared error", ylim=(0, None))
    axes.legend()

    shown = [int(np.flatnonzero(digits.labels == digit)[0]) for digit in range(10)]
    rows = {
        "test digit": digits.test,
        "autoencoder": nonlinear,
        "principal\ncomponents": linear,
    }
    grid = right.subplots(len(rows), len(shown))
    for (name, images), cells in zip(rows.items(), grid, strict=True):
        for index, cell in zip(shown, cells, strict=True):
            cell.imshow(images[index, 0], cmap="gray_r", vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
        cells[0].set_ylabel(name, rotation=0, ha="right", va="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="PNG to write")
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args(arguments)
    if options.epochs < 1:
        parser.error(f"--epochs={options.epochs} must be at least 1")

    digits, network = read_digits(), autoencoder()
    began = perf_counter()
    curves = train(network, digits, options.epochs)
    elapsed_s = perf_counter() - began
    nonlinear, linear = network.predict(digits.test), by_principal_components(digits)
    errors = [mean_squared_error(images, digits.test) for images in (nonlinear, linear)]
    print(f"{CODE} numbers for 64 pixels; mean squared error on {len(digits.test)} test digits:")
    print(f"autoencoder {errors[0]:.4f}, principal components {errors[1]:.4f}")
    print(f"It took {elapsed_s:.1f} s.")
    plot(options.output, digits, nonlinear, linear, curves)
    print(f"The curves and digits are in {options.output}")


if __name__ == "__main__":
    main()
