"""Depthwise driver: a task is some rows of some planes of y.

while a task is left:
    for plane in planes of the task:                   # an image and an output channel
        slide over the rows of the plane               # kernel.py
"""

from tconv.engine.codegen.abi import Call
from tconv.engine.codegen.code import ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR, Module

__all__ = ["run_depthwise"]


def run_depthwise(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run(arguments, thread)``: take tasks until there are none."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = Call(code, a["arguments"])
    with c.all_tasks(a["thread"]) as task:
        plane_block, row_block = code.divmod(task, c.row_blocks)
        first_row = code.mul(row_block, c.rows)
        end_row = code.least(code.add(first_row, c.rows), c.all_rows)
        first = code.mul(plane_block, c.planes)
        end = code.least(code.add(first, c.planes), c.all_planes)
        with code.loop(end, first) as plane:
            of_batch, output = code.divmod(plane, c.blocks)  # a block is one output channel
            image, group = code.divmod(of_batch, c.groups)
            x = code.at(c.x, code.mul(of_batch, c.x_group))
            number = code.add(code.mul(group, c.blocks), output)
            weight = code.at(c.weight, code.mul(number, c.weight_block))
            cell = code.add(code.mul(image, c.y_batch), code.mul(number, c.y_channel))
            y, residual = code.at(c.y, cell), code.at(c.residual, cell)
            where = (a["arguments"], x, weight, code.at(c.bias, number), y, residual)
            code.call(c.slide, *where, first_row, end_row)
    code.end()
