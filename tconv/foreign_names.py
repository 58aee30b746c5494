"""Names of other libraries, and what the same things are called here."""

from collections.abc import Collection
from difflib import get_close_matches

__all__ = ["hint_for", "meant_by"]

# What PyTorch, Keras, TensorFlow, JAX, Flax, ONNX and SciPy call keywords, methods, attributes and
# functions, in lower case. Of several names here the first one counts that the caller knows.
_NAMES = {
    # sizes and settings of convolutions
    "strides": "stride",
    "window_strides": "stride",
    "lhs_dilation": "stride",
    "subsample": "stride",
    "pad": "padding",
    "pads": "padding",
    "auto_pad": "padding",
    "mode": "padding kernel",
    "boundary": "padding_mode",
    "dilations": "dilation",
    "dilation_rate": "dilation",
    "kernel_dilation": "dilation",
    "rhs_dilation": "dilation",
    "rate": "dilation",
    "group": "groups",
    "num_groups": "groups",
    "feature_group_count": "groups",
    "kernel_shape": "kernel_size",
    "filter_size": "kernel_size",
    "filter_shape": "weight_shape kernel_size",
    "kernel": "weight kernel_size",
    "ksize": "kernel_size",
    "pool_size": "kernel_size",
    "window_shape": "kernel_size",
    "output_shape": "output_size",
    "transpose_kernel": "flip_kernel",
    "input_shape": "x_shape y_shape",
    "dimension_numbers": "data_format",
    "layout": "data_format",
    # interpolation
    "zoom": "scale upsample",
    "scale_factor": "scale",
    "factor": "scale",
    "zoom_factor": "scale",
    "order": "kernel",
    "interpolation": "kernel",
    "resample": "kernel",
    "bilinear": "linear",
    "trilinear": "linear",
    "bicubic": "cubic",
    "lanczos": "lanczos3",
    "box": "nearest",
    "rescale": "upsample",
    "resize": "upsample",
    "interpolate": "upsample",
    "decimate": "downsample",
    "axis": "axes",
    # operands
    "input": "x y",
    "inputs": "x y input",
    "image": "x y input",
    "lhs": "x y input",
    "value": "x y input",
    "x": "input y",
    "y": "x",
    "filter": "weight",
    "filters": "out_channels weight",
    "rhs": "weight",
    "w": "weight",
    "b": "bias",
    # options of calls and layers
    "features": "out_channels",
    "out_features": "out_channels",
    "num_filters": "out_channels",
    "nb_filter": "out_channels",
    "in_features": "in_channels",
    "use_bias": "bias",
    "with_bias": "bias",
    "initializer": "initialiser",
    "kernel_initializer": "initialiser",
    "weight_initializer": "initialiser",
    "kernel_init": "initialiser",
    "w_init": "initialiser",
    "init": "initialiser",
    "act": "activation",
    "nonlinearity": "activation",
    "alpha": "negative_slope",
    "slope": "negative_slope",
    "conj": "conjugate",
    "preferred_element_type": "dtype",
    "precision": "dtype",
    "algorithm": "method",
    "num_threads": "threads",
    "n_threads": "threads",
    "n_jobs": "threads",
    "workers": "threads",
    "memory_limit": "max_bytes",
    "seed": "rng",
    "random_state": "rng",
    "generator": "rng",
    "key": "rng",
    # optimisers
    "learning_rate": "lr",
    "step_size": "lr",
    "epsilon": "eps",
    "beta_1": "betas",
    "beta_2": "betas",
    "b1": "betas",
    "b2": "betas",
    "decay": "weight_decay",
    "params": "parameters",
    "param_groups": "parameters",
    "update": "step",
    "apply_gradients": "step",
    # layers and parameters
    "zero_grad": "zero_gradients zero_gradient",
    "grad": "gradient",
    "data": "value",
    "numpy": "value",
    "assign": "value",
    "weights": "weight parameters",
    "variables": "parameters",
    "trainable_variables": "parameters",
    "trainable_weights": "parameters",
    "named_children": "members",
    "children": "members",
    "modules": "members",
    "get_weights": "state_dict",
    "set_weights": "load_state_dict",
    "save_weights": "save",
    "load_weights": "load",
    "call": "forward",
    # functions and classes
    "conv_transposed": "conv_transpose",
    "convtranspose": "ConvTranspose",
    "conv1dtranspose": "ConvTranspose1d",
    "conv2dtranspose": "ConvTranspose2d",
    "conv3dtranspose": "ConvTranspose3d",
    "conv1d_transpose": "conv_transpose1d",
    "conv2d_transpose": "conv_transpose2d",
    "conv3d_transpose": "conv_transpose3d",
    "deconv": "conv_transpose",
    "deconvolve": "conv_transpose",
    "deconvolution": "conv_transpose",
    "convolve": "conv",
    "correlate": "conv",
    "maxpooling1d": "MaxPool1d",
    "maxpooling2d": "MaxPool2d",
    "maxpooling3d": "MaxPool3d",
    "max_pool2d": "max_pool",
    "batchnorm2d": "BatchNorm",
    "batchnormalization": "BatchNorm",
    "module": "Layer",
    "model": "Sequential",
    # values
    "nhwc": "channels_last",
    "nwc": "channels_last",
    "ndhwc": "channels_last",
    "nchw": "channels_first",
    "ncw": "channels_first",
    "ncdhw": "channels_first",
    "iohw": "IO*",
    "hwoi": "*OI",
    "hwio": "*IO",
    "oihw": "OI*",
    "ohwi": "O*I",
    "constant": "zeros",
    "zero": "zeros",
    "wrap": "circular",
    "edge": "replicate",
    "mirror": "reflect",
}
_LEAST_ALIKE = 0.7  # as difflib measures it; with its own 0.6 "size" would stand for "stride"
_REMARKS = {
    "train": "there is no mode to switch: forward(x) is for training, predict(x) for inference",
    "eval": "there is no mode to switch: forward(x) is for training, predict(x) for inference",
    "deconv2d": "the tutorial's layer is tconv.tinynet.Deconv2D",
    "optim": "the optimisers are tconv.SGD and tconv.Adam",
    "functional": "the functions are those of tconv itself, such as tconv.conv_transpose2d",
}


def hint_for(name: str, known: Collection[str]) -> str:
    """What to add to a message about an unknown name; empty if no known one seems to be meant.

    >>> hint_for("strides", ["stride", "padding"]), hint_for("paddng", ["stride", "padding"])
    ("; did you mean 'stride'?", "; did you mean 'padding'?")
    >>> hint_for("zzz", ["stride"])
    ''
    """
    lower = name.lower()
    if lower in _REMARKS and lower not in known:
        return f"; {_REMARKS[lower]}"
    meant = meant_by(name, known)
    return f"; did you mean {meant!r}?" if meant else ""


def meant_by(name: str, known: Collection[str]) -> str | None:
    """The known name that is likely meant by an unknown one, if any.

    >>> meant_by("NHWC", ("channels_first", "channels_last"))
    'channels_last'
    """
    lower = name.lower()
    meant = [each for each in _NAMES.get(lower, "").split() if each in known]
    meant += [each for each in known if each.lower() == lower]
    meant += get_close_matches(name, known, 1, _LEAST_ALIKE)
    return meant[0] if meant else None
