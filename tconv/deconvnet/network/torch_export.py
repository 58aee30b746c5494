"""Export of PyTorch modules to ONNX in memory, without constant folding."""

import io
import warnings
from typing import Any

from tconv.errors import ParameterError, UnsupportedError

__all__ = ["channels_of", "export_module"]


def channels_of(module: Any) -> tuple[int, int]:
    """Return channels and number of spatial axes of a module's images, by its first convolution.

    Raises
    ------
    ParameterError : it has none
    """
    for each in module.modules():
        weight = getattr(each, "weight", None)
        channels = getattr(each, "in_channels", None)
        if channels is not None and weight is not None and weight.ndim in (3, 4):
            return int(channels), int(weight.ndim) - 2
    raise ParameterError(
        f"model={type(module).__name__} must have a convolution of one or two axes, which tells "
        "how many channels an image has; export it to ONNX and pass that."
    )


def export_module(module: Any, shape: tuple[int, ...]) -> bytes:
    """Export a module for images of one shape; its mode and its device stay.

    Raises
    ------
    UnsupportedError : PyTorch cannot export it
    """
    import torch

    was_training = module.training
    like = next(module.parameters())
    buffer: Any = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # The tracing exporter keeps BatchNormalization, and needs no other packages.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                (torch.zeros(shape, dtype=like.dtype, device=like.device),),
                buffer,
                dynamo=False,
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
                input_names=["image"],
            )
    except Exception as error:  # any error of the module's own code
        raise UnsupportedError(
            f"PyTorch cannot export {type(module).__name__}: {' '.join(str(error).split())}; "
            "export it to ONNX yourself and pass that."
        ) from error
    finally:
        module.train(was_training)
    data: bytes = buffer.getvalue()
    return data
