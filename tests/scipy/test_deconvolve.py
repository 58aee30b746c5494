"""The example that recovers a photo: what it prints, and the picture."""

import re

from loading import example
from tconv.images import read_picture

deconvolve = example("deconvolve")


def test_a_photo_is_recovered_better_than_by_cubic_interpolation(tmp_path, capsys):
    deconvolve.main(["--output", str(tmp_path / "new")])
    printed = capsys.readouterr().out
    assert "288x288 pixels, of which 96x96 samples are kept" in printed
    found = re.findall(r"^(\w.*?) {2,}(\d+\.\d+) +\S+ +\d+$", printed, re.MULTILINE)
    ratios = {name: float(ratio) for name, ratio in found}
    assert len(ratios) == 4
    cubic = ratios["cubic interpolation"]
    assert ratios["transpose alone"] < cubic
    assert cubic + 2 < ratios["Tikhonov, gradient"] < ratios["total variation"]
    assert read_picture(tmp_path / "new/deconvolve.png").shape == (3, 630, 1812)
