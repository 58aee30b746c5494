"""Try the installed wheel; `make check` runs this in an environment that has nothing else."""

import importlib.metadata
import sys
from pathlib import PurePosixPath

import numpy as np

import tconv

files = [PurePosixPath(str(file)) for file in importlib.metadata.files("tconv") or ()]
version = importlib.metadata.version("tconv")
assert version == tconv.__version__, (version, tconv.__version__)

strangers = [str(f) for f in files if f.parts[0] not in ("tconv", f"tconv-{version}.dist-info")]
assert not strangers, f"the wheel also installs {strangers}"
for name in ("tconv/py.typed", "tconv/__init__.py", f"tconv-{version}.dist-info/licenses/LICENSE"):
    assert PurePosixPath(name) in files, f"the wheel lacks {name}"
assert tconv.__file__ is not None
assert tconv.__file__.startswith(sys.prefix), f"tried {tconv.__file__}, which is not the wheel's"

w = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
y = np.array([[[[37.0, 47.0], [67.0, 77.0]]]])
x = tconv.conv_transpose(y, w)
assert x.tolist() == [[[[37, 121, 94], [178, 500, 342], [201, 499, 308]]]], x
assert tconv.conv(np.arange(1.0, 10.0).reshape(1, 1, 3, 3), w).tolist() == y.tolist()
print(f"tconv {version}: {len(files)} files installed, the worked example holds")
