"""What can be said about a conversion: one class per format and direction.

Plain dataclasses, so that the command line can show them without loading h5py.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """What every import can be told."""

    task: str = ""
    """Task id to store (empty: as the source names it)."""
    num_traj: int = 0
    """Trajectories to take, the first so many (0: all)."""
    zero_rewards: bool = False
    """Set every reward to 0, as COG does with prior data; success becomes unknown."""
    image_size: int = 0
    """Side of the square images to store, pixels, area-resized (0: as they are)."""
    skip_bad: bool = False
    """Leave out trajectories that cannot be used, naming each, instead of stopping."""


@dataclasses.dataclass(frozen=True)
class FileOptions(ImportOptions):
    """What formats need to be told that name neither rate nor units."""

    rate: float = 0.0
    """Control rate, Hz (0: what the source says)."""
    action_scale: float = 0.0
    """Amount that a stored action of 1 stands for: actions are divided by it (0: 1, or half the
    range of the action space where the source says it)."""


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
    """What every export can be told."""

    num_traj: int = 0
    """Episodes to take, the first so many (0: all)."""


@dataclasses.dataclass(frozen=True)
class RobomimicExport(ExportOptions):
    """One HDF5 file, splits as masks."""

    link_next_obs: bool = False
    """Store next_obs as links into obs: half the size, but demos cannot be copied out under
    other names."""


@dataclasses.dataclass(frozen=True)
class MinariExport(ExportOptions):
    """Folder of one dataset, images without loss (minari 0.5.4 and later)."""

    id: str = ""
    """Dataset id, e.g. lab/grasp-v0 (empty: the name of the folder written)."""


@dataclasses.dataclass(frozen=True)
class D4rlExport(ExportOptions):
    """Flat arrays in one .hdf5 or .npz file."""

    observations: str = "state"
    """What becomes `observations`: state, or the name of a camera; the rest goes to infos/."""
