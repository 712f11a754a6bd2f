"""The runs of a sweep on a Ray cluster. Ray itself is imported only where it is asked for.

Each run is one Ray task that starts the same ``ofrl train`` on its node, with the same paths: the
nodes share the file system with this computer and have ofrl_robot installed.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any, Dict, Sequence

from ofrl_robot.errors import ConfigError
from ofrl_robot.processes import available_cores
from ofrl_robot.workflow.sweeps.executors import end, ending, start

LOCAL = "local"  # address of a cluster that is started on this computer, for the sweep only
_CONNECT_TIMEOUT = 5.0  # s
_POLL = 0.1  # s between two looks of a task at its process
_OBJECT_STORE = 80 << 20  # bytes; only exit codes pass, and 75 MiB is the least that Ray takes


class RayExecutor:
    """Hands every run to the cluster, which starts it when it has the cores.

    Args:
        address: of the cluster, as ``ray.init`` takes it, or ``local``.
        cores, gpus: that one run takes. A ``local`` cluster has all that this computer has.

    Raises ConfigError where there is no such cluster, or no node of it is large enough.
    """

    def __init__(self, address: str, cores: int, gpus: int) -> None:
        _require_listener(address)
        self._ray = ray = _import_ray(address)
        options = {"address": address}
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
        self._running[name] = self._task.remote(list(words), str(log.resolve()), os.getcwd())

    def ended(self) -> Dict[str, str]:
        names = {reference: name for name, reference in self._running.items()}
        if not names:
            return {}
        done, _ = self._ray.wait(list(names), num_returns=len(names), timeout=0)
        endings = {names[reference]: self._ending(reference) for reference in done}
        for name in endings:
            del self._running[name]
        return endings

    def close(self) -> None:
        left = list(self._running.values())
        for reference in left:
            self._ray.cancel(reference)  # a KeyboardInterrupt in the task, which ends its process
        if left:
            self._ray.wait(left, num_returns=len(left), timeout=15)
        self._running.clear()
        self._ray.shutdown()

    def _ending(self, reference: Any) -> str:
        try:
            return ending(self._ray.get(reference))
        except Exception as error:  # of any kind: the node is gone, the folder is not there
            lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
            return f"lost by Ray ({lines[-1].strip()})"


def _import_ray(address: str) -> Any:
    """The module; for a local cluster in such a way that nothing of it listens to the network."""
    if address == LOCAL:
        # Read when Ray is imported. Off, it takes 127.0.0.1 for an address, as on other systems;
        # else it makes the computer's own of it and listens on all interfaces.
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
    """The task: returns the exit code of ``ofrl WORDS``."""
    process = start(words, Path(log), Path(folder))
    try:
        while process.poll() is None:  # a wait() would not hear of a cancellation
            time.sleep(_POLL)
    finally:
        end(process)
    return process.returncode


def _require_listener(address: str) -> None:
    """Raise ConfigError where nobody listens at HOST:PORT: Ray would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host, int(port)), _CONNECT_TIMEOUT).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from error


def _no_cluster(address: str, error: Exception) -> ConfigError:
    return ConfigError(
        "no Ray cluster at {} ({})".format(address, str(error).split("\n")[0]),
        "give --ray local, auto, HOST:PORT or ray://HOST:PORT",
    )


def _require_large_node(nodes: Sequence[Dict], address: str, needed: Dict[str, int]) -> None:
    """Raise ConfigError where no node can ever run a task: Ray would wait for one for good."""
    nodes = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(node.get(k, 0) >= v for k, v in needed.items()) for node in nodes):
        raise ConfigError(
            "no node of the Ray cluster {} has {CPU} cores and {GPU} GPUs".format(
                address, **needed
            ),
            "lower --threads, or add a node",
        )
