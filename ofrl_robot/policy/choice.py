"""Name how a policy's action is taken from its distribution. Imports no networks."""

from __future__ import annotations

from typing import Any, Dict, Literal, Tuple, get_args

from ofrl_robot.errors import ConfigError

ActionChoice = Literal["mode", "sample", "max_q"]
"""Deterministic; drawn; the best of several drawn ones by the checkpoint's critic."""
ACTION_CHOICES: Tuple[str, ...] = get_args(ActionChoice)
MODE, SAMPLE, MAX_Q = ACTION_CHOICES
CHOICE_WORDS = {MODE: "deterministic", SAMPLE: "sampled", MAX_Q: "max-Q"}  # for people


def require_choice(name: str) -> str:
    """Return ``name``. Raises ConfigError unless it is one of ACTION_CHOICES."""
    if name not in ACTION_CHOICES:
        raise ConfigError(f"unknown action choice {name!r}", f"use {' or '.join(ACTION_CHOICES)}")
    return name


def recorded_choice(identity: Dict[str, Any]) -> str:
    """Return the action choice in a policy's identity, as an episode holds it.

    Episodes recorded before "max_q" existed say only whether the policy drew its actions.
    """
    return str(identity.get("action_choice", SAMPLE if identity.get("sample") else MODE))
