"""A sweep on a Ray cluster: a local one of two workers."""

from __future__ import annotations

import importlib.util
import json

import pytest

from ofrl_robot.cli import main
from ofrl_robot.errors import ConfigError
from ofrl_robot.workflow.sweeps import ray_executor
from tests.workflow.sweeps.test_sweep import FLAGS, table

# found, not imported: how it listens is settled when it is
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed (pip install 'ray>=2.9')",
)


@pytest.fixture
def two_cores(monkeypatch):
    """A cluster of this size, wherever the tests run."""
    monkeypatch.setattr(ray_executor, "available_cores", lambda: 2)


@pytest.mark.slow
@pytest.mark.timeout(300)  # processes that import torch, on whatever machine
def test_a_sweep_on_ray_makes_the_runs_that_one_without_makes(
    two_cores, make_dataset, tmp_path, capsys
):
    words = [make_dataset(), *FLAGS, "--out", tmp_path, "--name", "ray", "--ray", "local"]
    words += ["--vary", "critic-lr=1e-3,1e30"]
    code = main(["sweep", *(str(word) for word in words)])
    err = capsys.readouterr().err
    sound, failed = table(tmp_path / "ray")
    assert code == 2 and "1 of 2 runs failed" in err
    assert "diverged at step" in failed["error"] and not sound["error"]
    run = tmp_path / "ray" / "critic_lr=1e-3"
    assert sound["verdict"] == json.loads((run / "selected.json").read_text())["verdict"]
    import ray

    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.timeout(300)  # processes that import torch, on whatever machine
def test_a_local_cluster_is_on_loopback_and_ends_with_its_runs(two_cores, tmp_path):
    import ray

    executor = ray_executor.RayExecutor("local", cores=2, gpus=0)
    try:
        assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
        for name in ("first", "second"):  # the cluster has the cores for one of them
            executor.submit(name, ["data", "info", str(tmp_path / "nothing")], tmp_path / name)
        endings = {}
        while len(endings) < 2:
            endings.update(executor.ended())
        assert set(endings.values()) == {"exit code 2"}
        assert all("no such dataset" in (tmp_path / name).read_text() for name in endings)
    finally:
        executor.close()
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_run_that_no_node_can_take_is_refused(two_cores):
    with pytest.raises(
        ConfigError, match="no node of the Ray cluster local has 2 cores and 9 GPUs"
    ):
        ray_executor.RayExecutor("local", cores=2, gpus=9)
