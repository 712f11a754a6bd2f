"""Settings from a YAML file, as if they had been typed."""

from __future__ import annotations

from pathlib import Path
from typing import List, Sequence

import yaml

from ofrl_robot.errors import ConfigError


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
            f"cannot be read ({str(error).splitlines()[0]})", "give a YAML file", path
        ) from error
    if not isinstance(values, dict):
        raise ConfigError("not a list of `name: value` lines", "see config/training/", path)
    flags: List[str] = []
    for name, value in values.items():
        flag = str(name).replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{'' if value else 'no-'}{flag}")
        else:
            entries = value if isinstance(value, list) else [value]
            flags += [f"--{flag}"] + [str(entry) for entry in entries]
    rest = words[:at] + words[at + 2 :]
    # after verb and positionals: an unknown flag's value must not be taken for a positional
    first = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
    return rest[:first] + flags + rest[first:]
