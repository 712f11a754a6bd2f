"""The ``ofrl`` command. One verb, one job; heavy imports happen inside the verb that needs them.

ofrl collect  --task Widow250SingleObjGrasp-v0 --episodes 300 --out datasets/grasp
ofrl train    datasets/grasp --algo cql
ofrl diagnose runs/grasp-cql
ofrl evaluate runs/grasp-cql --trials 50 --out datasets/grasp-cql-trials
ofrl report   runs/grasp-cql --trials datasets/grasp-cql-trials
ofrl data info datasets/grasp
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Generic, List, Optional, Sequence, Tuple, TypeVar, Union

import tyro
import yaml
from typing_extensions import Annotated, Literal

from ofrl_robot import __version__
from ofrl_robot.algos.config import AlgoConfig, config_class
from ofrl_robot.errors import ConfigError, OfrlError
from ofrl_robot.nets.config import NetConfig
from ofrl_robot.sim.options import SimOptions
from ofrl_robot.training.config import RunConfig, TrainConfig

Positional = tyro.conf.Positional
subcommand = tyro.conf.subcommand
Hyper = TypeVar("Hyper", bound=AlgoConfig)
DEFAULT_ALGO = "cql"


@dataclasses.dataclass(frozen=True)
class Collect:
    """Record scripted episodes in simulation, without ROS (the same recorder)."""

    task: str
    """Simulator task id, e.g. Widow250SingleObjGrasp-v0."""
    out: Path
    """Dataset folder; episodes are added to what lies there."""
    episodes: int = 100
    """Episodes to record; failures are kept."""
    noise: float = 0.1
    """Standard deviation of the noise added to every action entry (1 = full scale)."""
    seed: int = 0
    """Seed of the first episode; the next has seed + 1, and so on."""
    sim: SimOptions = SimOptions()
    policy: str = ""
    """Scripted policy (empty: the one that solves the task)."""
    workers: int = 1
    """Processes to record in, 0 for one a core; the episodes are the same with any number."""
    operator: str = ""
    """Who collects, stored in every episode."""

    def run(self) -> None:
        from ofrl_robot.robots.parallel import available_cores, record_parallel
        from ofrl_robot.robots.runner import episode_meta, record_episodes

        _at_least("episodes", self.episodes, 1)
        _at_least("seed", self.seed, 0)
        _at_least("workers", self.workers, 0)
        robot, actor = self.robot_and_actor()
        meta = episode_meta(robot, actor.settings, actor="scripted", operator=self.operator)
        workers = min(self.workers or available_cores(), self.episodes)
        if workers == 1:
            record = functools.partial(record_episodes, robot, actor)
        else:
            robot.close()  # was built to know its specs, and to refuse what cannot be built
            record = functools.partial(record_parallel, self.robot_and_actor, workers)
        try:
            successes = _record(record, self.out, self.episodes, self.seed, meta)
        finally:
            robot.close()
        print("recorded now: {} of {} succeeded".format(successes, self.episodes))
        _print_total(self.out)

    def robot_and_actor(self) -> Tuple[Any, Any]:
        """One of each, as every process that records needs them."""
        from ofrl_robot.robots.actors import ScriptedActor
        from ofrl_robot.robots.sim import SimRobot

        actor = ScriptedActor(self.task, self.noise, self.policy)
        return SimRobot(self.task, self.sim), actor


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Run trials of a policy in simulation, without ROS, and print k/n."""

    policy: Positional[Path]
    """Run folder (its selected checkpoint) or checkpoint file."""
    out: Path
    """Dataset folder for the trials, must be new or empty."""
    task: str = ""
    """Simulator task id (empty: the task of the training data)."""
    trials: int = 50
    """Trials."""
    seed: int = 1000000
    """Seed of the first trial; keep it away from the seeds of collection."""
    sample: bool = False
    """Draw actions from the policy instead of taking its mode."""
    sim: SimOptions = SimOptions(image_size=0)

    def run(self) -> None:
        from ofrl_robot.data.schema import episode_paths
        from ofrl_robot.policy.checkpoint import resolve_checkpoint
        from ofrl_robot.policy.policy import Policy
        from ofrl_robot.robots.runner import episode_meta, record_episodes
        from ofrl_robot.robots.sim import SimRobot

        _at_least("trials", self.trials, 1)
        _at_least("seed", self.seed, 0)
        if self.out.is_dir() and episode_paths(self.out):
            raise ConfigError("holds episodes already", "choose a new folder for trials", self.out)
        policy = Policy(resolve_checkpoint(self.policy), self.sample)
        options = self.sim
        if not options.image_size:
            options = dataclasses.replace(options, image_size=policy.header.image_shape[0])
        robot = SimRobot(self.task or policy.header.task, options)
        policy.require_specs(
            robot.action_spec, robot.observation_spec, robot.control_rate_hz, "robot sim"
        )
        print("policy: {}".format(policy.path))
        meta = episode_meta(robot, actor="policy", policy=policy.identity())
        record = functools.partial(record_episodes, robot, policy)
        try:
            _record(record, self.out, self.trials, self.seed, meta)
        finally:
            robot.close()
        _print_total(self.out)


@dataclasses.dataclass(frozen=True)
class Diagnose:
    """Verdict on a run (overfit, underfit or good) and the checkpoint that deployment takes."""

    run_folder: Positional[Path]
    """Run folder written by `ofrl train`."""

    def run(self) -> None:
        from ofrl_robot.workflow.selection import select_checkpoint

        print("\n".join(select_checkpoint(self.run_folder).lines()))


@dataclasses.dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page: curves, verdict, trials with film strips."""

    run_folder: Positional[Path]
    """Run folder written by `ofrl train`."""
    trials: Tuple[Path, ...] = ()
    """Folders of recorded trials to set beside the verdict."""
    out: Optional[Path] = None
    """File to write (default: <run>/report/report.html)."""

    def run(self) -> None:
        from ofrl_robot.workflow.report import write_report

        print("report: {}".format(write_report(self.run_folder, self.trials, self.out)))


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Counts, lengths, success, action ranges and rates of a dataset."""

    dataset: Positional[Path]
    """Dataset folder."""

    def run(self) -> None:
        from ofrl_robot.data.info import describe

        print("\n".join(describe(self.dataset)))


@dataclasses.dataclass(frozen=True)
class DataConvert:
    """Turn somebody else's file into episodes. Nothing in the file is ever executed."""

    format: Positional[Literal["roboverse"]]
    """Format of the file: roboverse (pickled .npy of scripted trajectories)."""
    file: Positional[Path]
    """File to read."""
    out: Positional[Path]
    """Dataset folder to write; must be new or empty."""
    task: str = ""
    """Task id to store (empty: taken from the file name where it is there)."""

    def run(self) -> None:
        from ofrl_robot.data.convert.roboverse import convert

        count = convert(self.file, self.out, self.task)
        print("{} episodes -> {}".format(count, self.out))


@dataclasses.dataclass(frozen=True)
class Train(Generic[Hyper]):
    """Train on a dataset and write a run folder; ends with the diagnosis.

    `--algo NAME --help` shows the settings of that algorithm; another algorithm's are refused.
    `--config FILE` takes settings from a YAML file; flags on the command line win.
    """

    dataset: Positional[Path]
    """Dataset folder."""
    hyper: Hyper
    nets: NetConfig
    train: TrainConfig
    algo: str = DEFAULT_ALGO
    """Algorithm: bc or cql."""
    out: Path = Path("runs")
    """Folder of all runs."""
    name: str = ""
    """Name of this run (default: <dataset>-<algo>)."""

    def run(self) -> None:
        from ofrl_robot.training.loop import train
        from ofrl_robot.workflow.selection import select_checkpoint

        config = RunConfig(self.dataset, self.algo, self.hyper, self.nets, self.train)
        name = self.name or "{}-{}".format(self.dataset.resolve().name, self.algo)
        folder = train(config, self.out / name)
        print("run: {}".format(folder))
        print("\n".join(select_checkpoint(folder).lines()))


@dataclasses.dataclass(frozen=True)
class Data:
    """Look at datasets and convert them."""

    command: Union[
        Annotated[DataInfo, subcommand("info")],
        Annotated[DataConvert, subcommand("convert")],
    ]

    def run(self) -> None:
        self.command.run()


@dataclasses.dataclass(frozen=True)
class Sim:
    """Hold the embedded simulator against recordings of the real roboverse."""

    job: Positional[Literal["replay"]]
    """What to do: replay (feed the recorded actions and compare where they lead)."""
    file: Positional[Path]
    """Roboverse .npy file of scripted trajectories."""
    env: str = ""
    """Task id (empty: taken from the file name where it is there)."""
    report: Optional[Path] = None
    """JSON file to write."""

    def run(self) -> None:
        from ofrl_robot.evaluation.fidelity import replay_file, require_writable, write_report

        if self.report is not None:
            require_writable(self.report)
        fidelity = replay_file(self.file, self.env, print)
        print("\n".join(fidelity.lines()))
        if self.report is not None:
            write_report(fidelity, self.report)
            print("report: {}".format(self.report))


def _commands(argv: Sequence[str]) -> Any:
    """Union of all verbs; ``train`` takes the settings of the algorithm that argv names."""
    return Union[
        Annotated[Collect, subcommand("collect")],
        Annotated[Train[config_class(_algo(argv))], subcommand("train")],  # type: ignore[misc]
        Annotated[Diagnose, subcommand("diagnose")],
        Annotated[Evaluate, subcommand("evaluate")],
        Annotated[Report, subcommand("report")],
        Annotated[Data, subcommand("data")],
        Annotated[Sim, subcommand("sim")],
    ]


class _SettingsLoader(yaml.SafeLoader):
    """Safe YAML in which only true and false are truth values: `realism: off` is a word."""


_SettingsLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def expand_config(words: Sequence[str]) -> List[str]:
    """Replace ``--config FILE`` by the flags in that YAML file (``name: value`` lines).

    They come before all other flags, so that those on the command line win; all go through the
    same parser, so an unknown name in the file is refused like an unknown flag.
    """
    words = list(words)
    if "--config" not in words:
        return words
    at = words.index("--config")
    if at + 1 == len(words):
        raise ConfigError("--config needs a file")
    path = Path(words[at + 1])
    try:
        values = yaml.load(path.read_text(), _SettingsLoader) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            "cannot be read ({})".format(str(error).splitlines()[0]), "give a YAML file", path
        ) from error
    if not isinstance(values, dict):
        raise ConfigError("not a list of `name: value` lines", "see config/training/", path)
    flags: List[str] = []
    for name, value in values.items():
        flag = str(name).replace("_", "-")
        if isinstance(value, bool):
            flags.append("--{}{}".format("" if value else "no-", flag))
        else:
            entries = value if isinstance(value, list) else [value]
            flags += ["--" + flag] + [str(entry) for entry in entries]
    rest = words[:at] + words[at + 2 :]
    # after verb and positionals: an unknown flag's value must not be taken for a positional
    first = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    return rest[:first] + flags + rest[first:]


def _algo(argv: Sequence[str]) -> str:
    algo = DEFAULT_ALGO
    for word, following in zip(argv, list(argv[1:]) + [""]):
        if word == "--algo":
            algo = following
        elif word.startswith("--algo="):
            algo = word[len("--algo=") :]
    return algo


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Entry point. Exit code 0, 2 for anything the user can mend, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        print("ofrl_robot {}".format(__version__))
        return 0
    try:
        words = expand_config(words)
        command = tyro.cli(
            _commands(words),
            prog="ofrl",
            description=__doc__,
            args=words,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
        command.run()
    except OfrlError as error:
        print("ofrl: {}".format(error), file=sys.stderr)
        return 2
    except BrokenPipeError:  # `ofrl data info X | head`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("ofrl: interrupted; everything finished so far is kept", file=sys.stderr)
        return 130
    return 0


def _at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise ConfigError("{} {} is below {}".format(name, value, low))


def _record(record: Callable[..., None], out: Path, count: int, seed: int, meta: Any) -> int:
    """Record episodes with a progress bar; returns how many of them succeeded.

    Args:
        record: called as (out, count, seed, meta, on_episode).
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    successes, start = 0, time.monotonic()
    bar = Progress(TextColumn("episodes"), BarColumn(bar_width=16),
                   TextColumn("{task.completed}/{task.total} saved"),
                   TextColumn("{task.fields[successes]} successes"),
                   TextColumn("{task.fields[rate]:.1f}/s"), TextColumn("eta"),
                   TimeRemainingColumn())  # fmt: skip
    with bar:
        task = bar.add_task("", total=count, successes=0, rate=0.0)

        def saved(done: int, label: int) -> None:
            nonlocal successes
            successes += label == 1
            rate = done / (time.monotonic() - start)
            bar.update(task, completed=done, successes=successes, rate=rate)

        record(out, count, seed, meta, saved)
    return successes


def _print_total(folder: Path) -> None:
    """The count that lies on disk."""
    from ofrl_robot.evaluation.trials import report_trials

    print("{}: {}".format(folder, report_trials(folder).line()))


if __name__ == "__main__":
    sys.exit(main())
