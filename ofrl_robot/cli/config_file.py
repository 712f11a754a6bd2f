"""Read settings from the YAML file of ``--config`` as if they had been typed."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import yaml

from ofrl_robot.errors import ConfigError
from ofrl_robot.files import read_yaml

_FLAG = "--config"
_ABOUT = "see config/training/ for examples"
_NOT_SETTINGS = ("help", "version", "config")  # flags that set nothing


class _SettingsLoader(yaml.SafeLoader):
    """Safe YAML in which only true and false are truth values: `realism: off` is a word."""


_SettingsLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """Settings of a file, as command line words.

    Attributes:
        path: the file.
        values: key -> value, as they are in the file.
        words: the same as flags.
    """

    path: Path
    values: Dict[str, Any]
    words: Tuple[str, ...]

    def insert(self, words: Sequence[str]) -> List[str]:
        """Return ``words`` with the flags of the file before all other flags, which then win."""
        # after verb and positionals: an unknown flag's value must not be taken for a positional
        first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        return [*words[:first], *self.words, *words[first:]]

    def blame(self, error: ConfigError, typed: Sequence[str]) -> Optional[ConfigError]:
        """Return the error that names this file, key and value; None when they did not cause it.

        Args:
            error: what the parser or a setting's own check says.
            typed: words of the command line itself, whose flags win over the file.
        """
        for key, value in self.values.items():
            flag = re.escape(key.replace("_", "-"))
            is_flag = re.compile(rf"--(no-)?{flag}(?![\w-])")
            if any(is_flag.match(word) for word in typed):
                continue
            named = is_flag.search(error.what) or re.match(rf"{re.escape(key)}\b", error.what)
            # the parser repeats only the value of a switch that takes none
            if named or error.what.endswith(f": {value}") or repr(str(value)) in error.what:
                reason = f"{error.what}; {error.fix}" if error.fix else error.what
                return ConfigError(
                    f"{key} is {value!r}, which cannot be used ({reason})",
                    "correct or remove that line",
                    self.path,
                )
        return None


def split_config(words: Sequence[str]) -> Tuple[List[str], Optional[ConfigFile]]:
    """Take ``--config FILE`` out of the words.

    Returns:
        The other words, and the settings of the file, or None without ``--config``.

    Raises:
        ConfigError: naming the file, and the key and value that are wrong.
    """
    rest: List[str] = []
    paths: List[Path] = []
    following = iter(words)
    for word in following:
        if word == _FLAG:
            paths.append(Path(next(following, "")))
        elif word.startswith(f"{_FLAG}="):
            paths.append(Path(word[len(_FLAG) + 1 :]))
        else:
            rest.append(word)
    if not paths:
        return rest, None
    if len(paths) > 1:
        raise ConfigError("--config is given twice", "give it once")
    if paths[0] == Path():
        raise ConfigError("--config has no file", "give a YAML file")
    return rest, _read(paths[0])


def _read(path: Path) -> ConfigFile:
    values = read_yaml(path, _SettingsLoader)
    if values is None:  # an empty file
        values = {}
    if not isinstance(values, dict):
        raise ConfigError("is not a list of `name: value` lines", _ABOUT, path)
    words: List[str] = []
    for key, value in values.items():
        words += _flag_words(key, value, path)
    return ConfigFile(path, values, tuple(words))


def _flag_words(key: Any, value: Any, path: Path) -> List[str]:
    """Return the words that set ``key`` to ``value``.

    Raises:
        ConfigError: the key is not the name of a setting, or the value is not one of a setting.
    """
    if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z][\w-]*", key) or key in _NOT_SETTINGS:
        raise ConfigError(f"{key!r} is not a setting (it is set to {value!r})", _ABOUT, path)
    flag = key.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    entries = value if isinstance(value, list) else [value]
    if any(isinstance(entry, (bool, dict, list)) for entry in entries):
        fix = "give a number, a word, true, false, null, or a list of numbers or words"
        raise ConfigError(f"{key} is {value!r:.100}", fix, path)
    if not isinstance(value, list):
        return [f"--{flag}={value}"]  # null is None, as the parser has it
    texts = [str(entry) for entry in entries]
    for text in texts:
        if re.match(r"-(?![\d.])", text):  # would be taken for a flag
            raise ConfigError(f"{key} has the entry {text!r}", "leave out the leading -", path)
    return [f"--{flag}", *texts]
