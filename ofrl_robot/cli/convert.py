"""Verbs ``data convert`` and ``data export``: other formats into episodes and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Generic, Literal, TypeVar, Union

import tyro
from typing_extensions import Annotated

from ofrl_robot.cli.progress import file_bar
from ofrl_robot.cli.ros import ros_module
from ofrl_robot.data.convert.options import (
    BridgeImport,
    D4rlExport,
    D4rlImport,
    MinariExport,
    MinariImport,
    RobomimicExport,
    RobomimicImport,
    RoboverseImport,
)

Positional = tyro.conf.Positional
subcommand = tyro.conf.subcommand
Conversion = TypeVar("Conversion")  # options of one format


@dataclasses.dataclass(frozen=True)
class Import(Generic[Conversion]):
    """Convert from one format."""

    source: Positional[Path]
    """File or folder to read."""
    out: Positional[Path]
    """Dataset folder to write; must be new or empty."""
    conversion: Conversion

    def run(self) -> None:
        """Convert, and print how many episodes were written."""
        from ofrl_robot.data.convert.formats import import_dataset

        with file_bar("converting") as on_trajectory:
            made = import_dataset(self.source, self.out, self.conversion, on_trajectory)
        left_out = made.empty + made.bad
        print(
            f"{made.episodes} episodes -> {self.out}"
            + (f", {left_out} trajectories left out" if left_out else "")
        )


@dataclasses.dataclass(frozen=True)
class RosbagImport:
    """ROS 1 bag of the robot's topics, recorded during a collection. Needs ROS."""

    source: Positional[Path]
    """Bag to read."""
    out: Positional[Path]
    """Dataset folder to write; must be new or empty."""
    namespace: str = ""
    """Namespace of the robot's topics (empty: the only one in the bag)."""

    def run(self) -> None:
        """Convert, and print what was left out and how many episodes were written."""
        bag = ros_module("ofrl_ros.bag")
        with file_bar("messages") as on_message:
            made = bag.import_bag(self.source, self.out, self.namespace, on_message)
        for line in made.left_out:
            print(f"left out: {line}")
        print(f"{made.episodes} episodes -> {self.out}")


@dataclasses.dataclass(frozen=True)
class DataConvert:
    """Convert data of another project into episodes. No content of a file is executed."""

    command: Union[
        Annotated[
            Import[RoboverseImport], subcommand("roboverse", description=RoboverseImport.__doc__)
        ],
        Annotated[
            Import[RobomimicImport], subcommand("robomimic", description=RobomimicImport.__doc__)
        ],
        Annotated[Import[MinariImport], subcommand("minari", description=MinariImport.__doc__)],
        Annotated[Import[D4rlImport], subcommand("d4rl", description=D4rlImport.__doc__)],
        Annotated[Import[BridgeImport], subcommand("bridge", description=BridgeImport.__doc__)],
        Annotated[RosbagImport, subcommand("rosbag")],
    ]

    def run(self) -> None:
        """Run the chosen format's command."""
        self.command.run()


@dataclasses.dataclass(frozen=True)
class Export(Generic[Conversion]):
    """Export to one format."""

    dataset: Positional[Path]
    """Dataset folder."""
    out: Positional[Path]
    """File or folder to write; must not exist."""
    conversion: Conversion

    def run(self) -> None:
        """Export, and print how many episodes were written."""
        from ofrl_robot.data.convert.formats import export_dataset

        with file_bar("exporting") as on_episode:
            count = export_dataset(self.dataset, self.out, self.conversion, on_episode)
        print(f"{count} episodes -> {self.out}")


@dataclasses.dataclass(frozen=True)
class RosbagExport:
    """ROS 1 bag of the robot's topics, with the recorded stamps. Needs ROS."""

    dataset: Positional[Path]
    """Dataset folder."""
    out: Positional[Path]
    """Bag to write; must not exist."""
    namespace: str = ""
    """Namespace of the topics (empty: the name of the robot)."""
    compression: Literal["none", "bz2", "lz4"] = "none"
    """Lossless compression of the bag."""

    def run(self) -> None:
        """Export, and print how many episodes were written."""
        bag = ros_module("ofrl_ros.bag")
        with file_bar("exporting") as on_episode:
            count = bag.export_bag(
                self.dataset, self.out, self.namespace, self.compression, on_episode
            )
        print(f"{count} episodes -> {self.out}")


@dataclasses.dataclass(frozen=True)
class DataExport:
    """Export a dataset to a format that other tools read."""

    command: Union[
        Annotated[
            Export[RobomimicExport], subcommand("robomimic", description=RobomimicExport.__doc__)
        ],
        Annotated[Export[MinariExport], subcommand("minari", description=MinariExport.__doc__)],
        Annotated[Export[D4rlExport], subcommand("d4rl", description=D4rlExport.__doc__)],
        Annotated[RosbagExport, subcommand("rosbag")],
    ]

    def run(self) -> None:
        """Run the chosen format's command."""
        self.command.run()
