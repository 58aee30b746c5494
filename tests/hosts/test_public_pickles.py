"""Pickles of the hosts' objects: those of older versions are refused clearly."""

import pickle
from base64 import b85decode

import pytest

# Written by a version whose files stood elsewhere (protocol 4).
OLD = {
    "the packed weight of an accelerated module": (
        "fCQB#000000001t6Le#5ZgwtoZ*pU3E_Y>VXJ~YDl#B#RWpH$qlaz>slv0!~"
    ),
    "session": (
        "fCQBT0RR910001t5_Ds4ZgwtjZf<xkb7gaLX>V?nj0aO?b8~5LZj_UhDS?!Ilqie`UvqDDa${wbLvRQPI%WzO3IT"
        "Wu0e2Dsc_Ix%Z*F!}a$#<BaBp*E5&>r_6$k+c0SE#R0U`(h0DwOL0DwP20e4y#3ITW$5(*Fq0TK)f0tf*L0tf*L0"
        "tf?Q7YYG+5)uj!2muld3IYfL3IYfL3IYfOLIer`5D}D&314$%baZKMXLFQ{8gyfCZgwtjZf<xkb7gaLX>V>{Z*X*"
        "JZ*Fsxj0jU@baZKMXLFR3lqgP4PAPqqbd*w*j0azBWprq7WR#2qVRdwGl#B*nW^Zz1Wt53^VlD"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OLD)
def test_a_pickle_of_an_older_version_says_what_to_do(kind):
    told = (
        r"^No module named 'tconv\.\w+\.\w+'; .* another version of tconv: .* without save anew\.$"
    )
    with pytest.raises(ModuleNotFoundError, match=told):
        pickle.loads(b85decode(OLD[kind]))
