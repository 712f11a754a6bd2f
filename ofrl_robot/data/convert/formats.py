"""Table of formats: which class reads each one, which function writes it.

ROS bags are read and written by ``ofrl_ros.bag``, since they need ROS.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Type

from ofrl_robot.data.convert import bridge, d4rl, minari, options, robomimic, roboverse
from ofrl_robot.data.convert.importing import Imported, Progress, Source, import_episodes
from ofrl_robot.data.datasets.dataset import open_dataset
from ofrl_robot.errors import DatasetError, OfrlError
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
    """Convert ``source`` into episodes in ``out``; the class of ``how`` names the format.

    ``out`` is complete, or as it was before.

    Raises:
        ConfigError: an option is out of its range, or must be given for this source.
        DatasetError: ``source`` cannot be read.
        OfrlError: as :func:`~.importing.import_episodes`.
    """
    options.require_valid(how)
    require_new_folder(out)  # before gigabytes are loaded
    with contextlib.closing(_open(source, how)) as opened:
        return import_episodes(opened, out, how, progress)


def _open(source: Path, how: options.ImportOptions) -> Source:
    try:
        return _SOURCES[type(how)](source, how)
    except OfrlError:
        raise
    except Exception as error:  # a damaged file makes h5py, Pillow and numpy raise anything
        text = f"{type(error).__name__}: {ascii(str(error)):.100}"
        raise DatasetError(f"cannot be read ({text})", "get the file again", source) from error


def export_dataset(
    folder: Path, out: Path, how: options.ExportOptions, progress: Optional[Progress] = None
) -> int:
    """Write the episodes of ``folder`` in another format; the class of ``how`` names it.

    ``out`` is complete or is not created.

    Returns:
        The number of episodes written.

    Raises:
        ConfigError: an option is out of its range.
        DatasetError: an episode is damaged.
        OutputError: ``out`` exists or cannot be written.
    """
    options.require_valid(how)
    return _EXPORTS[type(how)](open_dataset(folder), out, how, progress)
