"""Options of a conversion: one class per format and direction.

Plain dataclasses, so that the command line can show them without loading h5py.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Literal, Optional, Union

from ofrl_robot.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

MIN_RATE_HZ, MAX_RATE_HZ = 0.1, 1000.0
RATE_RANGE = f"{MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz"
MAX_IMAGE_SIZE = 4096  # pixels; a camera has fewer rows


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """Options of every import."""

    task: str = ""
    """Task id to store, e.g. Widow250PickTray-v0 (empty: the one that the source names)."""
    num_traj: int = 0
    """Number of trajectories to convert, from the first on (0: all)."""
    zero_rewards: bool = False
    """Set every reward to 0, as COG does with prior data; success becomes unknown."""
    image_size: int = 0
    """Side of the square images to store, pixels, area-resized (0: keep the size)."""
    skip_bad: bool = False
    """Skip trajectories that cannot be used, with a warning for each, instead of stopping."""


@dataclasses.dataclass(frozen=True)
class FileOptions(ImportOptions):
    """Options for formats that may store neither control rate, units nor frames of reference."""

    rate: Optional[float] = None
    """Control rate, 0.1 to 1000 Hz (default: the one that the source stores)."""
    action_scale: Optional[float] = None
    """Physical amount of a stored action of 1; actions are divided by it (default: half the range
    of the action space if the source stores one, else 1)."""
    frame: Literal["unknown", "world", "base"] = "unknown"
    """Frame of reference of actions and poses: the scene (world) or the arm's base."""


class RoboverseImport(ImportOptions):
    """Pickled .npy of scripted trajectories (roboverse, COG). Nothing in it is executed."""


class BridgeImport(ImportOptions):
    """BridgeData, folders of raw trajectories: images0/im_0.jpg, obs_dict.pkl, policy_out.pkl."""


class RobomimicImport(FileOptions):
    """One HDF5 file with data/demo_0 and so on."""


class MinariImport(FileOptions):
    """Folder of one Minari dataset, stored as HDF5."""


class D4rlImport(FileOptions):
    """Flat arrays in one .hdf5 or .npz file."""


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """Options of every export."""

    num_traj: int = 0
    """Number of episodes to export, from the first on (0: all)."""


@dataclasses.dataclass(frozen=True)
class RobomimicExport(ExportOptions):
    """One HDF5 file, splits as masks."""

    link_next_obs: bool = False
    """Store next_obs as links into obs: half the size, but demos cannot be copied to another
    name."""


@dataclasses.dataclass(frozen=True)
class MinariExport(ExportOptions):
    """Folder of one dataset, images without loss (minari 0.5.4 and later)."""

    id: str = ""
    """Dataset id, e.g. lab/grasp-v0 (empty: the name of the output folder)."""


@dataclasses.dataclass(frozen=True)
class D4rlExport(ExportOptions):
    """Flat arrays in one .hdf5 or .npz file."""

    observations: str = "state"
    """Array to store as `observations`: state, or the name of a camera; the rest is stored below
    infos/."""
    channels_first: bool = False
    """Store the images of `observations` as (N, 3, H, W), which d3rlpy reads, not (N, H, W, 3)."""


def require_valid(options: Union[ImportOptions, ExportOptions]) -> None:
    """Raise ConfigError, naming the flag, unless every number is within its range."""
    if options.num_traj < 0:
        raise ConfigError(
            f"--num-traj is {options.num_traj}", "pass a positive number, or 0 for all"
        )
    if isinstance(options, ImportOptions) and not 0 <= options.image_size <= MAX_IMAGE_SIZE:
        raise ConfigError(
            f"--image-size is {options.image_size}", f"pass 1 to {MAX_IMAGE_SIZE} pixels, or 0"
        )
    if not isinstance(options, FileOptions):
        return
    if options.rate is not None and not is_rate(options.rate):
        raise ConfigError(f"--rate is {options.rate:g} Hz", f"pass {RATE_RANGE}")
    scale = options.action_scale
    if scale is not None and not 0 < scale < math.inf:
        raise ConfigError(f"--action-scale is {scale:g}", "pass a finite number above 0")


def is_rate(hz: Union[float, np.integer, np.floating]) -> bool:
    """Return whether a control rate, Hz, is one that a robot can have (NaN is not)."""
    return bool(MIN_RATE_HZ <= hz <= MAX_RATE_HZ)
