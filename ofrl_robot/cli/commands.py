"""Offline RL for robot arms: collect, train, diagnose, deploy, and look after the data.

ofrl collect  --task Widow250SingleObjGrasp-v0 --episodes 300 --out datasets/grasp

ofrl data     verify datasets/grasp

ofrl train    datasets/grasp --algo cql

ofrl diagnose runs/grasp-cql

ofrl report   runs/grasp-cql

ofrl evaluate runs/grasp-cql --trials 50 --out datasets/grasp-cql-trials

`ofrl VERB --help` explains a verb, `ofrl --version` prints the version, and
`ofrl --tyro-print-completion bash` prints a script for tab completion (also zsh).
"""

from __future__ import annotations

import errno
from typing import Any, Sequence, Union

import tyro
from typing_extensions import Annotated

from ofrl_robot.algos.registry import config_class
from ofrl_robot.cli.config_file import split_config
from ofrl_robot.cli.data import Data
from ofrl_robot.cli.info import Info
from ofrl_robot.cli.launch import Launch, prepare_launch
from ofrl_robot.cli.learning import Diagnose, Report, Train, algorithm
from ofrl_robot.cli.output import PIPE_CLOSED, PipeClosed, checked_output, complain, escaped_output
from ofrl_robot.cli.parsing import UsageError, parse, parse_quietly, print_usage_error
from ofrl_robot.cli.rehearse import Rehearse
from ofrl_robot.cli.simulation import Collect, Evaluate, Sim
from ofrl_robot.cli.stress import StressTest
from ofrl_robot.cli.sweep import Sweep
from ofrl_robot.cli.train_words import prepare_train
from ofrl_robot.errors import ConfigError, OfrlError

subcommand = tyro.conf.subcommand
_ERROR = 2  # exit code for everything that the user can correct


def verbs(words: Sequence[str]) -> Any:
    """Return the union of all verbs, in the order of the path from data to a deployed policy.

    Those that train take the settings of the algorithm that ``words`` name. What is heavy is
    imported inside the verb that needs it.
    """
    settings = config_class(algorithm(words))
    table = (
        (Collect, "collect", "Record scripted episodes in simulation."),
        (Data, "data", "Look at datasets, check, edit and convert them."),
        (Train[settings], "train", "Train a policy on a dataset."),  # type: ignore[valid-type]
        (Diagnose, "diagnose", "Judge a run and choose its checkpoint."),
        (Report, "report", "Write a page with curves, verdict and trials."),
        (Evaluate, "evaluate", "Run trials in simulation and print k/n."),
        (StressTest, "stress", "Try a policy under single disturbances in simulation."),
        (Sweep[settings], "sweep", "Train for every combination of settings."),  # type: ignore[valid-type]
        (Launch, "launch", "Collect or deploy over ROS, with an honest exit code."),
        (Rehearse, "rehearse", "Play every fault over ROS and measure until the arm stops."),
        (Sim, "sim", "Compare the simulator with the real roboverse."),
        (Info, "info", "Print versions and hardware for a bug report."),
    )
    # `ofrl --help` shows one line of each verb, `ofrl VERB --help` its whole docstring
    chosen = words[:1] and not words[0].startswith("-")
    return Union[
        tuple(
            Annotated[form, subcommand(name, description=None if chosen else line)]
            for form, name, line in table
        )
    ]


def run(words: Sequence[str]) -> int:
    """Parse ``words``, run the verb and return the exit code.

    Whatever the user can correct is one line on stderr. An exception of Python itself that names no
    file is a bug, so it is not caught.
    """
    try:
        with checked_output():
            command = read_command(words)
            with escaped_output():
                command.run()
    except OfrlError as error:
        return _fail(str(error))
    except PipeClosed:  # `ofrl data info DATA | head`: the reader has seen enough
        return PIPE_CLOSED
    except OSError as error:
        if error.filename is None:
            raise
        reason = error.strerror or str(error)
        fix = "choose a shorter name" if error.errno == errno.ENAMETOOLONG else "check the path"
        return _fail(f"{error.filename}: cannot be used ({reason}); {fix}")
    return 0


def read_command(words: Sequence[str]) -> Any:
    """Return the verb that ``words`` ask for, with its settings.

    Raises:
        ConfigError: a setting cannot be used; one of the file of ``--config`` is named with it.
        SystemExit: the parser has printed help (exit code 0) or what is wrong (2).
    """
    typed, config = split_config(prepare_train(prepare_launch(words)))
    if config is None:
        return _read(typed)
    words = config.insert(typed)
    if "--help" in typed or "-h" in typed:
        return _read(words)
    try:
        return _read(words, quietly=True)
    except ConfigError as error:
        named = config.blame(error, typed)
        if named is not None:
            raise named from error
        if isinstance(error, UsageError):
            print_usage_error(error)
        raise


def _read(words: Sequence[str], quietly: bool = False) -> Any:
    form = verbs(words)
    return parse_quietly(form, words) if quietly else parse(form, words, str(__doc__))


def _fail(message: str) -> int:
    complain(message)
    return _ERROR
