"""Networks for tests of pieces: encoders and decoders with branches, in one to three axes."""

import numpy as np

from tconv.graph import Graph, Input, Node

__all__ = ["Maker", "encoder_decoder"]


class Maker:
    """Nodes and weights of a graph that is being made; each method returns the name of a result."""

    def __init__(self, rank, seed):
        self.rank, self.rng = rank, np.random.default_rng(seed)
        self.nodes, self.constants = [], {}

    def add(self, operator, *inputs, **attributes):
        """A node of one result."""
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(Node(operator, inputs, (name,), attributes, name))
        return name

    def weights(self, *shape):
        """A constant that keeps values at their size."""
        name = f"w{len(self.constants)}"
        scale = np.sqrt(max(np.prod(shape[1:]), 1))
        self.constants[name] = (self.rng.standard_normal(shape) / scale).astype(np.float32)
        return name

    def conv(self, x, channels, made, kernel=3, stride=1, dilation=1, pads=None):
        """A convolution that keeps sizes unless it has a stride."""
        if pads is None:
            reach = dilation * (kernel - 1)
            pads = [reach // 2] * self.rank + [reach - reach // 2] * self.rank
        weight = self.weights(made, channels, *[kernel] * self.rank)
        settings = {"strides": [stride] * self.rank, "dilations": [dilation] * self.rank}
        return self.add("Conv", x, weight, self.weights(made), pads=pads, **settings)

    def up(self, x, channels, made, kernel=4, stride=2, crop=1):
        """A transposed convolution."""
        weight = self.weights(channels, made, *[kernel] * self.rank)
        pads = [crop] * 2 * self.rank
        return self.add("ConvTranspose", x, weight, pads=pads, strides=[stride] * self.rank)

    def pool(self, x, operator, kernel, stride, pads, **attributes):
        """A pooling with windows alike along all axes."""
        sizes = {"kernel_shape": [kernel] * self.rank, "strides": [stride] * self.rank}
        return self.add(operator, x, pads=[pads] * 2 * self.rank, **sizes, **attributes)

    def resized(self, x, mode, how="half_pixel"):
        """Twice as many cells along each axis."""
        name = f"w{len(self.constants)}"
        self.constants[name] = np.array([1, 1] + [2] * self.rank, np.float32)
        more = {"mode": mode, "coordinate_transformation_mode": how, "version": 13}
        if mode == "nearest":
            more |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.add("Resize", x, "", name, **more)

    def graph(self, output):
        """The graph with the input "x"."""
        inputs = (Input("x", "float32"),)
        return Graph(inputs, (output,), tuple(self.nodes), self.constants)


def encoder_decoder(rank, seed, down, up, channels=2):
    """A network of two levels down and up again, with branches between them.

    `down` and `up` name what halves sizes and what doubles them, for each of the levels.
    """
    maker = Maker(rank, seed)
    halve = {
        "conv": lambda x: maker.conv(x, channels, channels, 4, 2, pads=[1] * 2 * rank),
        "max": lambda x: maker.pool(x, "MaxPool", 2, 2, 0),
        "max padded": lambda x: maker.pool(x, "MaxPool", 4, 2, 1),
        "mean": lambda x: maker.pool(x, "AveragePool", 2, 2, 0),
        "mean padded": lambda x: maker.pool(x, "AveragePool", 4, 2, 1, count_include_pad=1),
        "mean counted": lambda x: maker.pool(x, "AveragePool", 4, 2, 1, count_include_pad=0),
    }
    double = {
        "transposed": lambda x: maker.up(x, channels, channels),
        "no overlap": lambda x: maker.up(x, channels, channels, 2, 2, 0),
        "nearest": lambda x: maker.resized(x, "nearest"),
        "linear": lambda x: maker.resized(x, "linear"),
    }
    first = maker.add("Relu", maker.conv("x", 1, channels))
    second = maker.add("Tanh", maker.conv(halve[down[0]](first), channels, channels, dilation=2))
    third = maker.add("Relu", maker.conv(halve[down[1]](second), channels, channels))
    joined = maker.add("Concat", double[up[1]](third), second, axis=1)
    middle = maker.add("Sigmoid", maker.conv(joined, 2 * channels, channels))
    summed = maker.add("Add", double[up[0]](middle), first)
    return maker.graph(maker.conv(summed, channels, 1, 1, pads=[0] * 2 * rank))
