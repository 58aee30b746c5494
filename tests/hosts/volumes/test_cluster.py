"""Runs on a cluster of dask.distributed: the same target, workers that die, errors."""

import os
import signal
from pathlib import Path

import distributed
import numpy as np
import pytest
import zarr

import tconv
from tconv.errors import DTypeError, ParameterError
from tconv.volumes import convert
from volume_files import contents, leftovers, make_source, weights

SETTINGS = {"stride": 2, "chunks": (2, 8, 8, 8), "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def cluster():
    """Two processes of one thread each, in the environment of this one."""
    import dask

    paths = os.pathsep.join([str(Path(tconv.__file__).parents[1]), str(Path(__file__).parents[2])])
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ.PYTHONPATH": paths}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_source("x.zarr", (2, 20, 20, 20), (2, 8, 8, 8))


def test_a_cluster_makes_the_target_of_threads(cluster, source):
    w, b = weights((2, 2, 3, 3, 3)), weights((2,))
    report = convert("x.zarr", w, b, "y.zarr", scheduler=cluster.scheduler_address, **SETTINGS)
    assert (report.computed, report.workers) == (216, 2)
    convert("x.zarr", w, b, "z.zarr", **SETTINGS)
    assert contents("y.zarr") == contents("z.zarr")
    again = convert("x.zarr", w, b, "y.zarr", scheduler=cluster.scheduler_address, **SETTINGS)
    assert again.computed == 0


def test_a_worker_that_is_killed_in_the_middle_changes_nothing(cluster):
    w, killed = weights((2, 2, 3, 3, 3)), []
    with distributed.Client(cluster, set_as_default=False) as client:

        def kill(done, total):
            if done == 60:
                killed.append(next(iter(client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)

        arguments = {**SETTINGS, "progress": kill}
        report = convert("x.zarr", w, target="y.zarr", scheduler=client, **arguments)
    assert killed
    assert report.computed == 216
    convert("x.zarr", w, target="z.zarr", **SETTINGS)
    assert not leftovers("y.zarr")
    assert contents("y.zarr") == contents("z.zarr")


def test_an_error_of_a_task_is_the_error_of_the_run(cluster):
    big = zarr.create_array("big.zarr", shape=(1, 40), chunks=(1, 8), dtype="int64")
    big[...] = 2**40
    w = np.full((1, 1, 2), 2**40)
    with pytest.raises(DTypeError, match="could reach"):
        convert("big.zarr", w, target="y.zarr", scheduler=cluster.scheduler_address)
    Path("x.zarr/c/0/1/1/1").write_bytes(b"damaged")
    w = weights((2, 2, 3, 3, 3))
    with pytest.raises(OSError, match="cannot be read"):
        convert("x.zarr", w, target="z.zarr", scheduler=cluster.scheduler_address, **SETTINGS)


def test_an_address_where_nobody_answers_is_told(monkeypatch):
    from tconv.volumes import schedulers

    monkeypatch.setattr(schedulers, "_TIMEOUT_S", 0.3)
    w = weights((2, 2, 3, 3, 3))
    with pytest.raises(ParameterError, match=r"scheduler='tcp://127.0.0.1:9' does not") as e:
        convert("x.zarr", w, target="y.zarr", scheduler="tcp://127.0.0.1:9", **SETTINGS)
    assert "start one by `dask scheduler`" in str(e.value)
    assert not Path("y.zarr").exists()


def test_a_scheduler_without_workers_is_told():
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as empty,
        pytest.raises(ParameterError, match="has no workers; start some by `dask worker`"),
    ):
        convert(
            "x.zarr",
            weights((2, 2, 3, 3, 3)),
            target="y.zarr",
            scheduler=empty.scheduler_address,
            **SETTINGS,
        )


def test_lazy_arrays_have_their_bits_from_a_cluster(cluster, source):
    import dask.array as da

    w = weights((2, 2, 3, 3, 3))
    whole = tconv.conv_transpose(source, w, stride=2, method="direct")
    with distributed.Client(cluster, set_as_default=False) as client:
        lazy = tconv.conv_transpose(da.from_zarr(os.path.abspath("x.zarr")), w, stride=2)
        np.testing.assert_array_equal(client.compute(lazy, sync=True), whole)
        lazy = tconv.dask.from_zarr("x.zarr", w, stride=2)
        np.testing.assert_array_equal(client.compute(lazy, sync=True), whole)
        x, y = da.from_zarr(os.path.abspath("x.zarr")), da.from_array(whole, chunks=16)
        gradient = tconv.conv_weight_gradient(x, y, (3, 3, 3), stride=2)
        np.testing.assert_array_equal(client.compute(gradient, sync=True), gradient.compute())
