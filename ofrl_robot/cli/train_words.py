"""Prepare the words of ``ofrl train``: its short help, and ``--resume RUN``."""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap
from pathlib import Path
from typing import Any, Dict, List, Sequence

from ofrl_robot.cli.learning import Train, algorithm
from ofrl_robot.errors import CheckpointError, ConfigError
from ofrl_robot.training import run_folder
from ofrl_robot.training.config import TrainConfig

# What people change first: (setting, class that has it, what stands for its value).
_FIRST = (
    ("algo", Train, "NAME"),
    ("steps", TrainConfig, "N"),
    ("batch_size", TrainConfig, "N"),
    ("checkpoint_every", TrainConfig, "N"),
    ("seed", TrainConfig, "N"),
    ("device", TrainConfig, "NAME"),
    ("observe", TrainConfig, "NAMES"),
    ("prior", Train, "DATASET"),
    ("out", Train, "DIR"),
    ("name", Train, "NAME"),
    ("resume", Train, "RUN"),
)


def prepare_train(words: Sequence[str]) -> List[str]:
    """Return the words that the parser is to read; those of other verbs are unchanged.

    Raises:
        CheckpointError, ConfigError: ``--resume`` names no run, or flags beside it differ from
            the run's settings.
        SystemExit: the short help was printed.
    """
    words = list(words)
    if words[:1] != ["train"]:
        return words
    if "--help-all" in words:
        return [word for word in words if word not in ("--help-all", "--help", "-h")] + ["--help"]
    if "--help" in words or "-h" in words:
        print(short_help())
        raise SystemExit(0)
    return _resumed(words)


# -- help --------------------------------------------------------------------------------------


def short_help() -> str:
    """Return the help of ``ofrl train`` with the settings that people change first."""
    rows = [("DATASET", _documentation(Train)["dataset"])]
    rows.append(("--config FILE", "YAML file of settings; flags on the command line win."))
    for name, owner, metavar in _FIRST:
        flag = f"--{name.replace('_', '-')} {metavar}"
        rows.append((flag, _documentation(owner)[name] + _default(name, owner)))
    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    lines = ["usage: ofrl train DATASET [--setting VALUE ...]", ""]
    lines += [str(inspect.getdoc(Train)).partition("\n")[0], ""]
    for flag, text in rows:
        lines += textwrap.wrap(
            text, width, initial_indent=f"  {flag:<22}", subsequent_indent=" " * 24
        )
    lines += [
        "",
        "`ofrl train --help-all` lists all settings, `ofrl train --algo NAME --help-all` those of",
        "another algorithm. docs/training.md explains them.",
    ]
    return "\n".join(lines)


def _documentation(owner: type) -> Dict[str, str]:
    """Return the text below each field of a dataclass, by the field's name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:]):
        is_field = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if is_field and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = " ".join(str(text.value.value).split())  # type: ignore
    return found


def _default(name: str, owner: type) -> str:
    value = getattr(owner, name, None)
    if isinstance(value, bool) or value in (None, ""):
        return ""
    return f" [{value}]"


# -- resume ------------------------------------------------------------------------------------


def _resumed(words: List[str]) -> List[str]:
    """Replace ``--resume RUN`` by all settings of that run.

    ``--resume`` with a dataset and all flags, as ``ofrl sweep`` gives it, stays as it is.
    """
    if "--resume" not in words:
        return words
    at = words.index("--resume")
    following = words[at + 1 : at + 2]
    if following and not following[0].startswith("-"):
        run = Path(following[0])
        if not run.is_dir():
            raise CheckpointError("no such run to resume", "check the path", run)
        rest = words[1:at] + words[at + 2 :]
    else:
        run = Path(words[1])  # ofrl train RUN --resume
        rest = words[2:at] + words[at + 1 :]
    return _with_settings(run, rest) if run_folder.is_run(run) else words


def _with_settings(run: Path, typed: List[str]) -> List[str]:
    config = run_folder.read_config(run)
    for word in typed:
        flag = word.partition("=")[0]
        if flag in ("--name", "--out", "--config"):
            raise ConfigError(f"{flag} cannot be used with --resume {run}", f"drop {flag}")
    if any(word.partition("=")[0] == "--algo" for word in typed):
        if algorithm(typed) != config.get("algo"):
            raise ConfigError(
                f"the run was trained with --algo {config.get('algo')}, not {algorithm(typed)}",
                "drop --algo, or train under another --name",
                run,
            )
    dataset = str(config.get("dataset"))
    if typed and not typed[0].startswith("-"):  # the same data in another place
        dataset = typed.pop(0)
    absolute = run if run.name not in ("", "..") else run.resolve()
    place = [f"--out={absolute.parent}", f"--name={absolute.name}", "--resume"]
    return ["train", dataset, *_flags(run_folder.settings(config)), *place, *typed]


def _flags(settings: Dict[str, Any]) -> List[str]:
    """Return settings as words of the command line."""
    words: List[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            words += [f"--{flag}", *(str(entry) for entry in value)]
        else:
            words.append(f"--{flag}={value}")
    return words
