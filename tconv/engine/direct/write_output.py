"""Output: the phases of every row are interleaved into y, without the cropped cells.

A large y is written by non-temporal stores. Cache lines that are written in part would be slow
then, so contiguous rows are held back and written together.
"""

from tconv.engine.codegen.abi import Call, Task
from tconv.engine.codegen.llvm import I64, PTR, Value

__all__ = ["copy_out"]


def copy_out(c: Call, task: Task, of_block: Value, is_last: Value) -> None:
    """Interleave the phases of every row of a task, from the accumulators to y of a block.

    The block begins at the cell `of_block` of y. A residual, if there is one, is added to each row.
    """
    code = c.code
    begin = code.sub(code.mul(task.column, c.stride_x), c.crop_offset_x)
    skipped = code.most(code.sub(0, begin), 0)  # cells of the first column that are cropped
    start = code.add(begin, skipped)
    cells = code.sub(code.mul(task.columns, c.stride_x), skipped)
    count = code.least(cells, code.sub(c.output_width, start))
    rest, first_y = code.divmod(task.row, c.height_rows)
    first_image, first_z = code.divmod(rest, c.depth_rows)
    is_im2col = code.is_equal(c.is_im2col, 1)  # rows run on through all planes and images
    begin_y, end_y = (
        code.pick(is_im2col, 0, first_y),
        code.pick(is_im2col, c.height_rows, code.add(first_y, task.rows)),
    )
    of_image = code.mul(code.add(task.image, first_image), c.y_batch)
    starts = [code.index(0), first_y, first_z, of_image]
    rows = code.mul(task.planes, task.rows)
    channels, is_kept = code.pick(is_last, c.last_block, c.block), code.is_equal(c.streams, 0)
    with code.loop(channels) as channel:
        of_channel = code.add(code.mul(channel, c.y_channel), start)
        is_followed = code.is_less(channel, code.sub(channels, 1))
        ahead = code.pick(code.both(is_followed, is_kept), c.y_channel, 0)
        with code.loop(c.stride_z) as phase_z:
            _find_lines(c, is_last, phase_z, channel)
            with code.loop_carrying(rows, starts) as ((n, y_row, z_row, image_at), following):
                of_plane = code.mul(code.add(task.plane, z_row), c.stride_z)
                of_y_z = code.sub(code.add(of_plane, phase_z), c.crop_offset_z)
                at_row = code.add(image_at, of_channel, code.mul(of_y_z, c.y_plane))
                lane = code.mul(n, c.pitch)
                with code.loop(c.stride_y) as phase_y:
                    of_y_y = code.sub(
                        code.add(code.mul(y_row, c.stride_y), phase_y), c.crop_offset_y
                    )
                    exists = code.both(
                        code.is_within(of_y_z, c.output_depth),
                        code.is_within(of_y_y, c.output_height),
                    )
                    with code.when(exists):
                        acc_starts = code.at(c.row_accumulators, code.mul(phase_y, c.stride_x), I64)
                        cell = code.add(of_block, at_row, code.mul(of_y_y, c.y_row))
                        far = code.cell(c.y, cell)
                        code.builder.store(far, c.to)
                        with code.when(code.is_equal(c.streams, 1)):
                            _hold(c, far, count)
                        to = code.load(c.to, kind=PTR)
                        phase = code.add(code.mul(phase_z, c.stride_y), phase_y)
                        with code.if_else(_is_untapped(c, phase)) as (untapped, reached):
                            with untapped:
                                bias = code.load(c.acc, code.load(acc_starts, 0, I64))
                                code.call(c.fill_row, to, bias, count)
                            with reached:
                                sizes = (lane, skipped, count, c.stride_x, ahead)
                                code.call(c.interleave_row, to, c.acc, acc_starts, *sizes)
                        with code.when(code.is_given(c.finish_row)):
                            residual = code.cell(c.residual, cell)
                            code.call(c.finish_row, to, residual, count, c.parameters)
                next_y = code.add(y_row, 1)
                wraps_y = code.is_equal(next_y, end_y)
                next_z = code.add(z_row, code.pick(wraps_y, 1, 0))
                wraps_z = code.is_equal(next_z, c.depth_rows)
                following += [
                    code.add(n, 1),
                    code.pick(wraps_y, begin_y, next_y),
                    code.pick(wraps_z, 0, next_z),
                    code.add(image_at, code.pick(wraps_z, c.y_batch, 0)),
                ]
    with code.when(code.is_equal(c.streams, 1)):
        _write_held(c)


def _is_untapped(c: Call, phase: Value) -> Value:
    """Whether no tap reaches the rows of a phase of planes and rows: y is bias there."""
    return c.code.is_equal(c.code.load(c.untapped_rows, phase, I64), 1)


def _hold(c: Call, far: Value, count: Value) -> None:
    """Hold a row of y back, in one piece with those held, so that few cache lines are split."""
    code, bytes_ = c.code, c.code.element.cell_bytes
    held = code.load(c.held, kind=I64)
    place, begun = (code.builder.ptrtoint(p, I64) for p in (far, code.load(c.begun, kind=PTR)))
    follows = code.is_equal(place, code.add(begun, code.mul(held, bytes_)))
    fits = code.is_less(code.add(held, count), c.held_size)
    with code.when(code.builder.not_(code.both(follows, fits))):
        _write_held(c)
        code.builder.store(far, c.begun)
    held = code.load(c.held, kind=I64)
    code.builder.store(code.cell(_held_cells(c), held), c.to)
    code.builder.store(code.add(held, count), c.held)


def _held_cells(c: Call) -> Value:
    """Where the held cells are: at the same offset within a cache line as in y."""
    code, number = c.code, c.code.element
    cell = code.div(code.builder.ptrtoint(code.load(c.begun, kind=PTR), I64), number.cell_bytes)
    _, beyond = code.divmod(cell, number.streamed_lanes)
    return code.cell(c.row_of_y, beyond)


def _write_held(c: Call) -> None:
    """Write the held cells to y."""
    code = c.code
    begun, held = code.load(c.begun, kind=PTR), code.load(c.held, kind=I64)
    code.call(c.stream, begun, _held_cells(c), held)
    code.builder.store(code.index(0), c.held)


def _find_lines(c: Call, is_last: Value, phase_z: Value, channel: Value) -> None:
    """Write where in the accumulators the phases of a plane of y begin, for a channel."""
    code = c.code
    in_plane = code.mul(c.stride_y, c.stride_x)
    first = code.add(code.pick(is_last, c.phases, 0), code.mul(phase_z, in_plane))
    entries = code.at(c.acc_starts, code.mul(first, 2), I64)
    with code.loop(in_plane) as phase:
        entry = code.mul(phase, 2)
        step = code.load(entries, code.add(entry, 1), I64)
        number = code.add(code.load(entries, entry, I64), code.mul(channel, step))
        code.store(code.mul(number, c.acc_pitch), c.row_accumulators, phase)
