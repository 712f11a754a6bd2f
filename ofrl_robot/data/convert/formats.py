"""The formats by their names: who reads, who writes. ROS bags have a place of their own."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Type

from ofrl_robot.data.convert import bridge, d4rl, minari, options, robomimic, roboverse
from ofrl_robot.data.convert.importing import Imported, Progress, Source, import_episodes
from ofrl_robot.data.datasets.dataset import Dataset, open_dataset
from ofrl_robot.errors import ConfigError, DatasetError, OfrlError
from ofrl_robot.files import require_new_folder

_SOURCES: Dict[Type[options.ImportOptions], Callable[[Path, Any], Source]] = {
    options.RoboverseImport: roboverse.RoboverseFile,
    options.RobomimicImport: robomimic.RobomimicFile,
    options.MinariImport: minari.MinariFolder,
    options.D4rlImport: d4rl.D4rlFile,
    options.BridgeImport: bridge.BridgeFolder,
}
_EXPORTS: Dict[Type[options.ExportOptions], Callable[..., int]] = {
    options.RobomimicExport: robomimic.export,
    options.MinariExport: minari.export,
    options.D4rlExport: d4rl.export,
}


def import_dataset(
    source: Path, out: Path, how: options.ImportOptions, progress: Optional[Progress] = None
) -> Imported:
    """Turn ``source`` into episodes in ``out``; the class of ``how`` says which format it is.

    Raises as :func:`~.importing.import_episodes`; ``out`` is complete or as it was.
    """
    for name in ("num_traj", "image_size", "rate", "action_scale"):
        if getattr(how, name, 0) < 0:
            raise ConfigError(f"{name} is below 0")
    require_new_folder(out)  # before gigabytes are loaded
    with contextlib.closing(_open(source, how)) as opened:
        return import_episodes(opened, out, how, progress)


def _open(source: Path, how: options.ImportOptions) -> Source:
    try:
        return _SOURCES[type(how)](source, how)
    except OfrlError:
        raise
    except Exception as error:  # as when a trajectory is read: a damaged file raises anything
        raise DatasetError(
            f"unreadable ({type(error).__name__}: {ascii(str(error)):.100})",
            "get it again",
            source,
        ) from error


def export_dataset(
    folder: Path, out: Path, how: options.ExportOptions, progress: Optional[Progress] = None
) -> int:
    """Write the episodes of ``folder`` in another format, the class of ``how``; returns how many.

    ``out`` is complete or does not exist.
    """
    if how.num_traj < 0:
        raise ConfigError("num_traj is below 0")
    dataset: Dataset = open_dataset(folder)
    return _EXPORTS[type(how)](dataset, out, how, progress)
