"""Say where training data comes from, and how that differs from where a policy is run."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Mapping

HARDWARE = "hardware"  # backend of an arm that is not simulated


def backend_and_realism(environment: Mapping[str, Any]) -> Dict[str, str]:
    """Return ``backend`` and ``realism`` of an episode's environment; no realism on hardware."""
    if "sim_backend" not in environment:
        return {"backend": HARDWARE, "realism": ""}
    backend, realism = environment["sim_backend"], environment.get("realism", "off")
    return {"backend": str(backend), "realism": str(realism)}


def data_environment(environments: Iterable[Mapping[str, Any]]) -> Dict[str, str]:
    """Return backend and realism of all episodes; several are joined by " or "."""
    found = [backend_and_realism(environment) for environment in environments]
    return {
        name: " or ".join(dict.fromkeys(each[name] for each in found if each[name]))
        for name in ("backend", "realism")
    }


def difference(
    data: Mapping[str, str], data_task: str, environment: Mapping[str, Any], task: str
) -> str:
    """Say in one line how a robot differs from the training data; empty where it does not.

    Args:
        data: of :func:`data_environment`; empty in checkpoints of older versions, of which only
            the task is known.
        data_task: task of the data.
        environment: settings of the robot, as an episode would hold them.
        task: that it is to do.
    """
    here = backend_and_realism(environment)
    trained, now = [], []
    for name, value in here.items():
        if data and value not in data.get(name, "").split(" or "):
            word = "realism " if name == "realism" else ""
            trained.append(f"{word}{data.get(name, '')}" if data.get(name) else f"no {name}")
            now.append(f"{word}{value}" if value else f"no {name}")
    if task != data_task:
        trained.append(data_task)
        now.append(task)
    if not trained:
        return ""
    return f"trained on {', '.join(trained)}; this is {', '.join(now)}"
