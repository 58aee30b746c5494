"""Constants of the cost model: a frozen record for each family of processors.

All are cycles, bytes per cycle, or ratios, and only their ratios matter: 2,900 cycles take a
microsecond on a server core of 2020. `bench/fit_costs.py` measures plans and fits the constants;
what it measured on a family, and the error of the fit, stand in `bench/costs/`.
"""

from dataclasses import dataclass, field

from tconv.engine.target.target import Target

__all__ = [
    "FAMILIES",
    "ChannelLanesConstants",
    "CostConstants",
    "DepthwiseConstants",
    "GemmConstants",
    "RowGemmConstants",
    "WinogradConstants",
    "cost_constants",
]


@dataclass(frozen=True)
class GemmConstants:
    """Of the algorithms that sum into accumulator rows: direct, im2col and col2im."""

    wake_cycles: float = 15_000  # to wake the threads of a call
    call_cycles: float = 25  # of a call of a micro-kernel
    store_cycles: float = 1.5  # per vector that it stores
    latency_cycles: float = 4  # of a product
    vector_cycles: float = 0.25  # per vector of x in a term
    prefetch_cycles: float = 0.6  # per vector of a term
    overlapped: float = 0.15  # what prefetched bytes take of the time that they would take alone
    row_cycles: float = 24  # of a call of interleave_row
    pack_row_cycles: float = 18  # per row of pack_rows
    packed_cycles: float = 2.0  # per vector of a panel
    # Of im2col (Zen 4, vectors of 512 and of 256 bits).
    gather_call_cycles: float = 5  # per channel and shift
    gathered_cycles: float = 5.0  # per vector of contiguous cells
    apart_cycles: float = 10.0  # per vector of other cells
    gather_cycles: float = 1.4  # per cell of such a vector
    # Of the scatter-add of col2im.
    added_row_cycles: float = 5  # per row
    added_cycles: float = 2.5  # per vector
    piece_cycles: float = 200  # of a piece of y that is stored non-temporally, for its ends
    near_bytes: float = 20  # per cycle from the L2 cache
    stream_bytes: float = 8  # per cycle, of weights from beyond it
    far_bytes: float = 12  # per cycle, of x from beyond it
    # Where every channel of x has pages of its own, and these are more than the TLB holds, each
    # takes so many cycles more.
    pages_bytes: float = 2 * 4096
    pages: float = 48
    page_cycles: float = 1.5
    crowded: float = 0.4  # of the L2 cache: a larger panel does not stay there as a whole
    clash_bytes: int = 4096  # planes of x so far apart share the sets of the L1 cache
    weight_cycles: float = 1.6  # to pack an element of a weight that is used once (Zen 5)


@dataclass(frozen=True)
class WinogradConstants:
    """Of the transforms: per vector and element that is read or written; bytes per cycle."""

    read_cycles: float = 0.6
    write_cycles: float = 1.6
    l3_bytes: float = 8
    memory_bytes: float = 4
    filter_cycles: float = 0.7  # of an element of a transformed filter, to choose an order of sums
    weight_cycles: float = 2.6  # to transform and pack one, if it is used once (Zen 5)


@dataclass(frozen=True)
class ChannelLanesConstants:
    """Fitted to 374 plans for 75 random shapes (Zen 3, one and two threads)."""

    term_cycles: float = 1.0  # of a term, beside arithmetic
    channel_cycles: float = 0.5  # of a channel
    row_cycles: float = 3  # of a row of a call
    sum_cycles: float = 3  # of each of its vectors
    k_block_cycles: float = 60  # of a k-block of a phase
    transpose_cycles: float = 4  # of a vector of y
    near_bytes: float = 28  # per cycle, from the L2 cache
    stream_bytes: float = 16  # of weights from the L3 cache
    far_bytes: float = 4  # of weights from memory
    overlap: float = 0.3  # the share of the shorter of two times that the longer does not hide


@dataclass(frozen=True)
class DepthwiseConstants:
    """Of sliding rows, beside the products."""

    task_cycles: float = 300
    plane_cycles: float = 15
    column_cycles: float = 2  # of some columns of a plane
    block_cycles: float = 1
    edge_store_cycles: float = 2.5  # of a masked store more than of another
    store_cycles: float = 1.5
    load_cycles: float = 1.1  # of a vector of x
    weight_cycles: float = 0.15  # of a weight that no register is left for, for each product
    shuffle_cycles: float = 1.3
    row_cycles: float = 1.7  # of a row of x
    latency_cycles: float = 0.1  # of a product, that others do not hide
    near_bytes: float = 110  # per cycle, from the L2 cache
    far_bytes: float = 39  # and from beyond it
    overlap: float = 0.03  # the share of the shorter of two times that the longer does not hide


@dataclass(frozen=True)
class RowGemmConstants:
    """Of GEMMs that write to y, beside the products."""

    task_cycles: float = 300
    row_cycles: float = 20  # of a row of y
    tile_cycles: float = 15  # of a call of a micro-kernel
    store_cycles: float = 1.5  # per vector that it writes
    latency_cycles: float = 4  # of a product
    read_cycles: float = 1.0  # of a vector of x that is read in place
    fill_cycles: float = 30  # of filling a panel
    fill_row_cycles: float = 3.0  # of a row of x for that, and of each load, shuffle and store
    load_cycles: float = 1.0
    shuffle_cycles: float = 1.0
    put_cycles: float = 1.0
    near_bytes: float = 30  # per cycle, of x and y from the L2 cache
    far_bytes: float = 16  # and from beyond it
    panel_bytes: float = 40  # of a panel from the L2 cache
    weight_bytes: float = 40  # of weights from the L2 cache
    far_weight_bytes: float = 12  # and from beyond it
    overlap: float = 0.2  # the share of the shorter of two times that the longer does not hide
    # Of a row of a tile, where more of them than the L1 cache has ways share its sets, and y lies
    # beyond the L2 cache: 160 x 160 cells, 96 rows of y, tiles of 14 and of 8 (Zen 5).
    clash_cycles: float = 26


@dataclass(frozen=True)
class CostConstants:
    """All constants of a family of processors."""

    gemm: GemmConstants = field(default_factory=GemmConstants)
    winograd: WinogradConstants = field(default_factory=WinogradConstants)
    channel_lanes: ChannelLanesConstants = field(default_factory=ChannelLanesConstants)
    depthwise: DepthwiseConstants = field(default_factory=DepthwiseConstants)
    row_gemm: RowGemmConstants = field(default_factory=RowGemmConstants)


# Fitted on AVX2 (Zen 3) and on AVX-512 (Xeon, Zen 4), but for depthwise plans and row GEMMs: those
# are of Zen 5, and untested on others. So is all of it on processors that no family names.
_ZEN_3 = CostConstants()
# Fitted to 2,608 plans for 198 random layers on one thread; see bench/costs/zen5.csv.
_ZEN_5 = CostConstants(
    gemm=GemmConstants(
        wake_cycles=25_000,  # calls of 10 us lose by a second thread, those of 25 us gain
        call_cycles=15.3,
        store_cycles=1.11,
        latency_cycles=4.78,
        vector_cycles=0.121,
        prefetch_cycles=0.359,
        overlapped=0.0629,
        row_cycles=36.9,
        pack_row_cycles=11.7,
        packed_cycles=1.72,
        gather_call_cycles=3.04,
        gathered_cycles=5.88,
        apart_cycles=8.1,
        gather_cycles=0.955,
        added_row_cycles=5.26,
        added_cycles=2.33,
        near_bytes=41.6,
        stream_bytes=9.29,
        far_bytes=24,
        page_cycles=1.56,
        crowded=0.507,
    ),
    winograd=WinogradConstants(read_cycles=0.334, write_cycles=2.31, l3_bytes=13.5),
    channel_lanes=ChannelLanesConstants(
        term_cycles=0.689,
        channel_cycles=0.433,
        row_cycles=2.54,
        sum_cycles=2.31,
        k_block_cycles=66.1,
        transpose_cycles=4.1,
        near_bytes=36.4,
        stream_bytes=14.9,
        far_bytes=4.07,
        overlap=0.122,
    ),
    depthwise=DepthwiseConstants(
        task_cycles=336,
        plane_cycles=15.8,
        column_cycles=1.27,
        block_cycles=0.851,
        edge_store_cycles=2.29,
        store_cycles=1.15,
        load_cycles=1.72,
        weight_cycles=0.251,
        shuffle_cycles=1.22,
        row_cycles=1.64,
        latency_cycles=0.0815,
        near_bytes=122,
        far_bytes=45.1,
        overlap=0.0292,
    ),
    row_gemm=RowGemmConstants(
        task_cycles=253,
        row_cycles=15,
        tile_cycles=35,
        store_cycles=1.52,
        latency_cycles=2.94,
        read_cycles=1.05,
        fill_cycles=25.5,
        fill_row_cycles=4.34,
        load_cycles=1.14,
        shuffle_cycles=1.11,
        put_cycles=1.01,
        near_bytes=26.6,
        far_bytes=23.8,
        panel_bytes=30.5,
        weight_bytes=32,
        far_weight_bytes=10.8,
        overlap=0.339,
    ),
)
FAMILIES = {"zen3": _ZEN_3, "zen5": _ZEN_5}
_OF_CPU = {"znver5": "zen5"}  # by LLVM's name


def cost_constants(target: Target) -> CostConstants:
    """Return the constants for a processor: those of its family, or else of Zen 3."""
    return FAMILIES[_OF_CPU.get(target.cpu, "zen3")]
