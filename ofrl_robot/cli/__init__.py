"""Offline RL for robot arms: record, train, diagnose, deploy, and look after the data.

ofrl collect  --task Widow250SingleObjGrasp-v0 --episodes 300 --out datasets/grasp

ofrl train    datasets/grasp --algo cql

ofrl sweep    datasets/grasp --vary seed=0,1,2 --vary cql-weight=1,5

ofrl diagnose runs/grasp-cql

ofrl evaluate runs/grasp-cql --trials 50 --out datasets/grasp-cql-trials

ofrl report   runs/grasp-cql --trials datasets/grasp-cql-trials

ofrl data info datasets/grasp

ofrl data verify datasets/grasp

ofrl sim replay recorded.npy --env Widow250PickTray-v0 --report fidelity.json
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Annotated, Any, Optional, Sequence, Union

import tyro

from ofrl_robot import __version__
from ofrl_robot.algos.registry import config_class
from ofrl_robot.cli.config_file import expand_config
from ofrl_robot.cli.data import Data
from ofrl_robot.cli.learning import Diagnose, Report, Train, algorithm
from ofrl_robot.cli.parsing import parse
from ofrl_robot.cli.simulation import Collect, Evaluate, Sim
from ofrl_robot.cli.sweep import Sweep
from ofrl_robot.errors import OfrlError

subcommand = tyro.conf.subcommand


# One verb, one class; what is heavy is imported inside the verb that needs it.
def _commands(argv: Sequence[str]) -> Any:
    """Union of all verbs; those that train take the settings of the algorithm that argv names."""
    settings = config_class(algorithm(argv))
    return Union[
        Annotated[Collect, subcommand("collect")],
        Annotated[Train[settings], subcommand("train")],  # type: ignore[valid-type]
        Annotated[Sweep[settings], subcommand("sweep")],  # type: ignore[valid-type]
        Annotated[Diagnose, subcommand("diagnose")],
        Annotated[Evaluate, subcommand("evaluate")],
        Annotated[Report, subcommand("report")],
        Annotated[Data, subcommand("data")],
        Annotated[Sim, subcommand("sim")],
    ]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Entry point. Exit code 0, 2 for anything the user can mend, 130 after Ctrl-C."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--version"]:
        print(f"ofrl_robot {__version__}")
        return 0
    try:
        words = expand_config(words)
        command = parse(_commands(words), words, __doc__)
        if isinstance(command, Sweep):
            command = dataclasses.replace(command, words=tuple(words))
        command.run()
    except OfrlError as error:
        print(f"ofrl: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `ofrl data info X | head`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("ofrl: interrupted", file=sys.stderr)
        return 130
    return 0
