"""An executor that starts the runs of a sweep on a Ray cluster.

Ray is imported only when such an executor is made. Each run is one Ray task that starts the same
``ofrl train`` on its node, with the same paths: the nodes share the file system with this computer
and have ofrl_robot installed.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any, Dict, Sequence

from ofrl_robot.errors import ConfigError
from ofrl_robot.processes import available_cores, terminate
from ofrl_robot.workflow.sweeps.executors import ending, start

LOCAL = "local"  # address of a cluster on this computer that lives as long as the sweep
_CONNECT_TIMEOUT = 5.0  # s
_POLL = 0.1  # s between two checks of a task on its process
_CANCEL_TIMEOUT = 15.0  # s that cancelled tasks have to end their processes
_OBJECT_STORE = 80 << 20  # bytes; only exit codes pass through it; Ray refuses less than 75 MiB


class RayExecutor:
    """Hands every run to the cluster, which starts it when it has the cores.

    Args:
        address: of the cluster, as ``ray.init`` takes it, or ``local`` (all cores of this
            computer).
        cores: CPU cores of one run.
        gpus: GPUs of one run.

    Raises:
        ConfigError: there is no such cluster, or no node of it is large enough for a run.
    """

    def __init__(self, address: str, cores: int, gpus: int) -> None:
        _require_listener(address)
        self._ray = ray = _import_ray(address)
        options: Dict[str, Any] = {"address": address}
        if address == LOCAL:
            options.update(
                num_cpus=max(cores, available_cores()),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE,
                _node_ip_address="127.0.0.1",
            )
        try:
            ray.init(log_to_driver=False, logging_level="error", **options)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise _no_cluster(address, error) from error
        self._running: Dict[str, Any] = {}  # Ray's references
        self._task = ray.remote(_run).options(num_cpus=cores, num_gpus=gpus, max_retries=0)
        try:
            _require_large_node(ray.nodes(), address, {"CPU": cores, "GPU": gpus})
        except ConfigError:
            ray.shutdown()
            raise

    def submit(self, name: str, words: Sequence[str], log: Path) -> None:
        """Hand ``ofrl WORDS`` to the cluster; its output is appended to ``log``."""
        self._running[name] = self._task.remote(list(words), str(log.resolve()), os.getcwd())

    def ended(self) -> Dict[str, str]:
        """Return the runs that ended since the last call, see ``Executor``."""
        names = {reference: name for name, reference in self._running.items()}
        if not names:
            return {}
        done, _ = self._ray.wait(list(names), num_returns=len(names), timeout=0)
        endings = {names[reference]: self._ending(reference) for reference in done}
        for name in endings:
            del self._running[name]
        return endings

    def close(self) -> None:
        """Cancel all runs that are still running, and disconnect from the cluster."""
        left = list(self._running.values())
        for reference in left:
            self._ray.cancel(reference)  # a KeyboardInterrupt in the task, which ends its process
        if left:
            self._ray.wait(left, num_returns=len(left), timeout=_CANCEL_TIMEOUT)
        self._running.clear()
        self._ray.shutdown()

    def _ending(self, reference: Any) -> str:
        try:
            return ending(self._ray.get(reference))
        except Exception as error:  # any kind: a lost node, a missing folder
            lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
            return f"lost by Ray ({lines[-1].strip()})"


def _import_ray(address: str) -> Any:
    """Return the module; a local cluster is kept from listening on the network.

    Raises:
        ConfigError: Ray is not installed.
    """
    if address == LOCAL:
        # Ray reads this when it is imported. With "0" it uses 127.0.0.1 as given; otherwise it
        # replaces 127.0.0.1 by the computer's own address and listens on all interfaces.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"Ray is not installed ({error})", "pip install 'ray>=2.9'", "--ray"
        ) from error
    return ray


def _run(words: Sequence[str], log: str, folder: str) -> int:
    """Run ``ofrl WORDS`` as a Ray task; return its exit code."""
    process = start(words, Path(log), Path(folder))
    try:
        while process.poll() is None:  # a cancellation does not interrupt wait()
            time.sleep(_POLL)
    finally:
        terminate([process])
    return process.returncode


def _require_listener(address: str) -> None:
    """Raise ConfigError if nothing listens at HOST:PORT; Ray would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ConfigError:
    reason = str(error).partition("\n")[0]
    return ConfigError(
        f"no Ray cluster at {address} ({reason})",
        "give --ray local, auto, HOST:PORT or ray://HOST:PORT",
    )


def _require_large_node(nodes: Sequence[Dict], address: str, needed: Dict[str, int]) -> None:
    """Raise ConfigError if no node can ever run a task; Ray would wait for one forever."""
    for node in nodes:
        resources = node["Resources"]
        if node["Alive"] and all(resources.get(k, 0) >= count for k, count in needed.items()):
            return
    raise ConfigError(
        f"no node of the Ray cluster {address} has {needed['CPU']} cores and {needed['GPU']} GPUs",
        "lower --threads, or add a node",
    )
