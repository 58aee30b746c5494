"""Steps of a program in words."""

from tconv.graph.steps import ContractionStep, LoopStep, Step

__all__ = ["described"]


def described(step: Step) -> str:
    """What a step computes.

    >>> from tconv.graph.steps import copy_step
    >>> from tconv.graph.values import Value
    >>> described(copy_step(Value.whole((2, 3)), Value.whole((2, 3))))
    'copy'
    """
    if isinstance(step, ContractionStep):
        geometry, is_conv = step.geometry, step.want == "x"
        kernel = "x".join(map(str, geometry.kernel_size))
        stride = "x".join(str(axis.stride) for axis in geometry.axes)
        read, made = geometry.in_channels, geometry.out_channels
        channels = f"{made} -> {read}" if is_conv else f"{read} -> {made}"
        words = [f"{'conv' if is_conv else 'conv_transpose'} {kernel}, {channels}"]
        words += [f"stride {stride}"] * any(axis.stride > 1 for axis in geometry.axes)
        words += [f"{geometry.groups} groups"] * (geometry.groups > 1)
        text = ", ".join(words)
        text += " + residual" * (step.residual is not None)
        return text + (f" + {step.activation}" if step.activation else "")
    if isinstance(step, LoopStep):
        return " ".join(name for name, _ in step.expression.instructions) or "copy"
    return f"reduction: {step.how}"
