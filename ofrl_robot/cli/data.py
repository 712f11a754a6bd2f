"""Commands that look at datasets and edit them: ``ofrl data``."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Optional, Tuple, Union

import tyro
from typing_extensions import Annotated

from ofrl_robot.cli.convert import DataConvert, DataExport
from ofrl_robot.cli.progress import at_least, file_bar, print_dry_run
from ofrl_robot.errors import ConfigError, DatasetError

Positional = tyro.conf.Positional
subcommand = tyro.conf.subcommand


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Counts, lengths, success, action ranges and rates of a dataset."""

    dataset: Positional[Path]
    """Dataset folder."""

    def run(self) -> None:
        """Print the summary."""
        from ofrl_robot.data.datasets.summary import describe

        print("\n".join(describe(self.dataset)))


@dataclasses.dataclass(frozen=True)
class DataVerify:
    """Check every file of a dataset, its timing and its labels; exit code 2 on damage."""

    dataset: Positional[Path]
    """Dataset folder."""
    repair: bool = False
    """Recover unfinished episodes, then move damaged files to <dataset>/damaged."""
    strict: bool = False
    """Exit code 2 on warnings too."""
    limits: Optional[Path] = None
    """YAML file of limits (default: config/data/limits.yaml)."""
    json: Optional[Path] = None
    """JSON file to write everything to."""
    workers: int = 0
    """Processes to check in, 0 for one per core."""

    def run(self) -> None:
        """Check, repair if asked, print the report."""
        from ofrl_robot.data.verify.dataset_check import (
            recover_unfinished,
            set_aside_damaged,
            verify_dataset,
        )
        from ofrl_robot.data.verify.episode_check import DAMAGE, WARNING
        from ofrl_robot.data.verify.report import write_json
        from ofrl_robot.data.verify.thresholds import load_limits
        from ofrl_robot.processes import available_cores

        at_least("workers", self.workers, 0)
        limits, source = load_limits(self.limits)
        if self.repair:
            for line in recover_unfinished(self.dataset):
                print(line)
        with file_bar("checking") as on_file:
            workers = self.workers or available_cores()
            verification = verify_dataset(self.dataset, limits, workers, on_file)
        if self.repair:
            verification, lines = set_aside_damaged(verification)
            for line in lines:
                print(line)
        print(f"limits: {source}")
        print("\n".join(verification.lines()))
        if self.json is not None:
            write_json(verification, self.json)
        damaged = verification.of_level(DAMAGE)
        if damaged or (self.strict and verification.of_level(WARNING)):
            fix = "see above"
            if damaged and not self.repair:
                fix += "; --repair sets damaged files aside"
            raise DatasetError(verification.verdict(), fix, self.dataset)


@dataclasses.dataclass(frozen=True)
class DataView:
    """Write one self-contained HTML page to browse episodes: film strips, plots, labels."""

    dataset: Positional[Path]
    """Dataset folder."""
    out: Optional[Path] = None
    """File to write (default: <dataset>/view.html)."""
    episodes: Tuple[str, ...] = ()
    """Numbers, ranges such as 0-49, or file names (default: the first 200)."""
    gif: bool = False
    """Also write a GIF of each episode, into clips/ beside the page."""
    mp4: bool = False
    """Also write an MP4 of each episode, into clips/ beside the page."""

    def run(self) -> None:
        """Write the page and the clips."""
        from ofrl_robot.data.datasets.dataset import open_dataset
        from ofrl_robot.pages.clips import GIF, MP4, write_clips
        from ofrl_robot.pages.dataset_view import choose_episodes, write_view

        with file_bar("drawing") as on_episode:
            page = write_view(self.dataset, self.out, self.episodes, on_episode)
        print(f"view: {page} ({page.stat().st_size / 1e6:.1f} MB)")
        for kind in [GIF] * self.gif + [MP4] * self.mp4:
            chosen = choose_episodes(open_dataset(self.dataset), self.episodes)
            with file_bar(kind) as on_episode:
                clips = write_clips(chosen, page.parent / "clips", kind, on_episode)
            size = sum(clip.stat().st_size for clip in clips) / 1e6
            print(f"clips: {len(clips)} {kind} in {page.parent / 'clips'} ({size:.1f} MB)")


@dataclasses.dataclass(frozen=True)
class DataLabel:
    """Set success, failure and rewards in the browser or from a CSV file, or write them to one.

    Columns of the file: episode (number or file name), success (1, 0 or unknown), step, reward. A
    row has either success, or step and reward.
    """

    dataset: Positional[Path]
    """Dataset folder."""
    csv: Optional[Path] = None
    """CSV file to take the labels from; one bad line and nothing is changed."""
    export: Optional[Path] = None
    """CSV file to write the labels to; must not exist."""
    browser: bool = False
    """Serve a page to label episodes in, to this computer only, until Ctrl-C."""
    port: int = 0
    """Port of that page, 0 for any free one."""

    def run(self) -> None:
        """Label, or export the labels."""
        from ofrl_robot.data.datasets.labels import export_csv, label_from_csv

        if (self.csv is not None) + (self.export is not None) + self.browser != 1:
            raise ConfigError(
                "one action at a time", "pass --browser, --csv FILE or --export FILE", "label"
            )
        if self.browser:
            self._serve()
        elif self.csv is not None:
            changed = label_from_csv(self.dataset, self.csv)
            print(f"{len(changed)} episodes changed")
        else:
            count = export_csv(self.dataset, self.export)
            print(f"labels of {count} episodes -> {self.export}")

    def _serve(self) -> None:
        from ofrl_robot.pages.label_server import LabelServer

        with LabelServer(self.dataset, self.port) as server:
            print(f"open {server.url} (Ctrl-C ends)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                server.serve_forever()


@dataclasses.dataclass(frozen=True)
class DataSplit:
    """Divide a dataset into train and valid, with the same share of successes in both."""

    dataset: Positional[Path]
    """Dataset folder; splits.json is written into it."""
    valid: float = 0.1
    """Fraction of the episodes to hold out, of each label."""
    seed: int = 0
    """Seed of the draw, 0 or more."""
    force: bool = False
    """Replace the split that is there."""

    def run(self) -> None:
        """Write the split and print its counts."""
        from ofrl_robot.data.datasets.splits import split

        print("\n".join(split(self.dataset, self.valid, self.seed, self.force)))


@dataclasses.dataclass(frozen=True)
class DataMerge:
    """Join datasets of the same specs in a new folder; the sources stay as they are."""

    folders: Positional[Tuple[Path, ...]]
    """Two or more datasets, then the new or empty folder to write."""
    allow_duplicates: bool = False
    """Also keep recordings that occur twice."""
    mixed_tasks: bool = False
    """Allow datasets of different tasks or robots."""

    def run(self) -> None:
        """Merge and print the result."""
        from ofrl_robot.data.datasets.merge import merge

        if len(self.folders) < 3:
            raise ConfigError("merge needs two datasets or more and a new folder")
        with file_bar("merging") as on_episode:
            merged = merge(
                self.folders[:-1],
                self.folders[-1],
                self.allow_duplicates,
                on_episode,
                self.mixed_tasks,
            )
        print("\n".join(merged.lines()))


@dataclasses.dataclass(frozen=True)
class DataDelete:
    """Move episodes to <dataset>/deleted; shows what it would do unless --yes is given."""

    dataset: Positional[Path]
    """Dataset folder."""
    episodes: Positional[Tuple[str, ...]]
    """Numbers, ranges (12-15) or file names."""
    yes: bool = False
    """Do it."""
    purge: bool = False
    """Remove them for good instead."""

    def run(self) -> None:
        """Delete, or print what would be deleted."""
        from ofrl_robot.data.datasets.edit import delete

        print("\n".join(delete(self.dataset, self.episodes, self.purge, self.yes)))
        print_dry_run(self.yes)


@dataclasses.dataclass(frozen=True)
class DataTrim:
    """Cut idle steps off both ends of every episode; shows what it would do unless --yes is given.

    Never cuts a step with a reward or a terminal. It cannot be undone.
    """

    dataset: Positional[Path]
    """Dataset folder."""
    idle: float = 0.02
    """A step is idle if every entry of its action is smaller (1 = full scale) ..."""
    still: float = 0.002
    """... and the end effector moves less than this (m); inf: ignore how it moves."""
    keep: int = 2
    """Idle steps to leave at an end."""
    start: bool = False
    """Only the start (with --end: both, as without either)."""
    end: bool = False
    """Only the end."""
    yes: bool = False
    """Do it."""

    def run(self) -> None:
        """Trim, or print what would be trimmed."""
        from ofrl_robot.data.datasets.trimming import Idle, trim

        both = self.start == self.end
        ends = both or self.start, both or self.end
        cuts = trim(self.dataset, Idle(self.idle, self.still, self.keep, *ends), self.yes)
        for cut in cuts:
            print(cut.line())
        episodes = sum(cut.removed > 0 for cut in cuts)
        print(f"{sum(cut.removed for cut in cuts)} steps of {episodes} episodes")
        print_dry_run(self.yes)


@dataclasses.dataclass(frozen=True)
class Data:
    """Look at datasets, edit and convert them."""

    command: Union[
        Annotated[DataInfo, subcommand("info")],
        Annotated[DataVerify, subcommand("verify")],
        Annotated[DataView, subcommand("view")],
        Annotated[DataLabel, subcommand("label")],
        Annotated[DataSplit, subcommand("split")],
        Annotated[DataMerge, subcommand("merge")],
        Annotated[DataDelete, subcommand("delete")],
        Annotated[DataTrim, subcommand("trim")],
        Annotated[DataConvert, subcommand("convert")],
        Annotated[DataExport, subcommand("export")],
    ]

    def run(self) -> None:
        """Run the chosen command."""
        self.command.run()
