"""Instruction sets: one row each, with everything that plans and kernels take from the set.

Nothing else in the engine looks an instruction set up by its name. To add one, add its row; the
tests go through all rows.
"""

from typing import NamedTuple

__all__ = [
    "ARCHITECTURES",
    "INSTRUCTION_SETS",
    "Architecture",
    "InstructionSet",
    "Tiles",
]

Tiles = tuple[tuple[int, int], ...]


class Architecture(NamedTuple):
    """Instructions that every CPU of an architecture has, by LLVM's names."""

    name: str  # as `target.architecture_of` has it; "" is any
    fence: str  # waits for non-temporal stores; "": they need none
    pause: str  # in a loop that waits for another thread; "": there is none
    pause_hints: tuple[int, ...] = ()  # its arguments


class InstructionSet(NamedTuple):
    """A set of vector instructions, and the tiles whose sums stay in its registers.

    Tests read the assembly of each tile. Without FMA a product takes a register, too.
    """

    name: str
    architecture: Architecture
    features: tuple[str, ...]  # LLVM's names; those of every CPU of the architecture are left out
    vector_bits: int
    registers: int  # vector registers
    has_fma: bool
    has_gather: bool  # an instruction for it that is at least as fast as loads one by one
    has_masks: bool  # instructions that load and store some lanes of a vector
    scale: str  # x * 2**n rounded once, by LLVM's name for "ps" or "pd"; "": there is none
    float16_feature: str | None  # which converts float16; None: every CPU does
    gemm_tiles: Tiles  # rows x vectors of micro-kernels for y and x
    # Rows x vectors of rank-1 updates for w: more rows would need more addresses than there are
    # registers for them.
    rank1_tiles: Tiles
    dot_tiles: Tiles  # rows x columns of dot kernels for w


_X86_64 = Architecture("x86_64", "llvm.x86.sse.sfence", "llvm.x86.sse2.pause")
_AARCH64 = Architecture("aarch64", "", "llvm.aarch64.hint", (1,))  # yield
_ANY = Architecture("", "", "")
ARCHITECTURES = (_X86_64, _AARCH64, _ANY)

INSTRUCTION_SETS = (
    InstructionSet(
        name="avx512",
        architecture=_X86_64,
        features=("avx512f", "avx512vl", "avx512dq", "avx512bw"),
        vector_bits=512,
        registers=32,
        has_fma=True,
        has_gather=True,
        has_masks=True,
        scale="llvm.x86.avx512.mask.scalef.{}.512",
        float16_feature="f16c",
        gemm_tiles=((16, 1), (14, 2), (8, 3), (6, 4), (4, 6), (3, 8)),
        rank1_tiles=((8, 1), (8, 2), (8, 3), (6, 4), (4, 6), (3, 8)),
        dot_tiles=((6, 4), (4, 6), (3, 8), (2, 8), (1, 8)),
    ),
    InstructionSet(
        name="avx2",
        architecture=_X86_64,
        features=("avx2", "fma"),
        vector_bits=256,
        registers=16,
        has_fma=True,
        has_gather=False,
        has_masks=True,
        scale="",
        float16_feature="f16c",
        gemm_tiles=((12, 1), (6, 2), (4, 3), (3, 4), (2, 6), (1, 8)),
        rank1_tiles=((8, 1), (6, 2), (4, 3), (3, 4), (2, 6)),
        dot_tiles=((4, 3), (3, 4), (2, 6), (1, 8)),
    ),
    InstructionSet(
        name="sse2",
        architecture=_X86_64,
        features=(),
        vector_bits=128,
        registers=16,
        has_fma=False,
        has_gather=False,
        has_masks=False,
        scale="",
        float16_feature="f16c",  # of a CPU with AVX alone
        gemm_tiles=((14, 1), (6, 2), (3, 3), (2, 4), (2, 6)),
        rank1_tiles=((8, 1), (6, 2), (3, 3), (2, 4)),
        dot_tiles=((3, 3), (2, 4), (1, 8)),
    ),
    InstructionSet(
        name="neon",
        architecture=_AARCH64,
        features=(),
        vector_bits=128,
        registers=32,
        has_fma=True,
        has_gather=False,
        has_masks=False,
        scale="",
        float16_feature=None,
        gemm_tiles=((16, 1), (13, 2), (8, 3), (6, 4), (4, 6), (3, 8)),
        rank1_tiles=((8, 1), (8, 2), (8, 3), (6, 4), (4, 6), (3, 8)),
        dot_tiles=((6, 4), (4, 6), (3, 8), (2, 8), (1, 8)),
    ),
    InstructionSet(
        name="generic",
        architecture=_ANY,
        features=(),
        vector_bits=128,
        registers=16,
        has_fma=False,
        has_gather=False,
        has_masks=False,
        scale="",
        float16_feature="f16c",  # of 32-bit x86
        gemm_tiles=((14, 1), (6, 2), (3, 3), (2, 4), (2, 6)),
        rank1_tiles=((8, 1), (6, 2), (3, 3), (2, 4)),
        dot_tiles=((3, 3), (2, 4), (1, 8)),
    ),
)
"""Best first: a CPU has the first row of its architecture all of whose features it has."""
