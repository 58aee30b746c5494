"""What features of a face detector see: the O-Net's, projected back to a face.

Writes a figure and a page, and prints how much of the projections' energy lies about the five
points that the network itself finds (eyes, nose, corners of the mouth), beside the same for
shuffled weights.
"""

import argparse
from pathlib import Path

import numpy as np
from onet import FACE, SIZE, model
from skimage import data

import tconv

OUTPUT = Path(__file__).resolve().parents[1] / "out"
RADIUS = 4  # pixels about a point, of 48
SETTINGS = {"size": SIZE, "value_range": (-127.5 / 128, 127.5 / 128), "rule": "gradient"}
LAYERS = {"prelu2": 64, "prelu3": 64, "prelu4": 128, "points": 10}  # and all their features


def points_of(network, face):
    """Rows and columns of the five points."""
    tiles = tconv.see(network, face, "points", feature=list(range(10)), **SETTINGS).tiles
    columns, rows = np.reshape([tile.activation for tile in tiles], (2, 5)) * SIZE
    return rows, columns


def near(rows, columns):
    """Which pixels lie about a point."""
    y, x = np.indices((SIZE, SIZE))
    pairs = zip(rows, columns, strict=True)
    nearest = np.min([(y - row) ** 2 + (x - column) ** 2 for row, column in pairs], axis=0)
    return nearest <= RADIUS**2


def share(tiles, mask):
    """Mean share of the projections' energy on some pixels."""
    energies = [(tile.projection.astype(np.float64) ** 2).sum(0) for tile in tiles]
    return float(np.mean([each[mask].sum() / each.sum() for each in energies if each.any()]))


def shares(network, face, mask):
    """For every layer the share of the network, and that of the network with shuffled weights."""
    for layer, count in LAYERS.items():
        seen = tconv.see(
            network, face, layer, feature=list(range(count)), crop=False, sanity=True, **SETTINGS
        )
        yield layer, share(seen.tiles, mask), share(seen.shuffled, mask)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the figures")
    options = parser.parse_args(arguments)
    options.output.mkdir(exist_ok=True)
    network, face = model(), data.astronaut()[FACE]
    seen = tconv.see(network, face, "prelu3", sanity=True, **SETTINGS)
    seen.save(options.output / "face.png")
    seen.save(options.output / "face.html")
    print(seen.ledger)
    mask = near(*points_of(network, face))
    print(f"\nenergy within {RADIUS} pixels of the five points ({mask.mean():.0%} of the face)")
    print("layer   O-Net  shuffled  ratio")
    for layer, real, mixed in shares(network, face, mask):
        print(f"{layer}  {real:6.0%}  {mixed:8.0%}  {real / mixed:5.2f}")
    print(
        "The deeper a layer, the more of the face its units see whatever the weights are, and its\n"
        "middle more than its rim: there shuffled weights come close."
    )
    print(f"\nWhat features of a face see: {(options.output / 'face.html').resolve().as_uri()}")


if __name__ == "__main__":
    main()
