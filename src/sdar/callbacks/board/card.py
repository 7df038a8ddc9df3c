"""The run in words: how it was started, what is not as usual, and with which versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sdar.callbacks.board.record import RunRecord
from sdar.callbacks.board.text import page

TAG = "run/card"
_MOST_SETTINGS = 80
_LONGEST_VALUE = 100


def run_card(record: RunRecord) -> str:
    """Markdown, at most as long as :data:`sdar.callbacks.board.text.LONGEST`."""
    run = record.run
    parts = [
        ("Run", record.title),
        ("Command", record.command_line or "not recorded"),
        ("Settings that differ from the defaults (value, then the default)", _settings(record.changed())),
        ("Revision", _revision(run.get("git"))),
    ]
    if run.get("resumed_from"):
        parts.append(("Continued from", str(run["resumed_from"])))
    if run.get("changed"):
        parts.append(("Settings that differ from those of the run before", json.dumps(run["changed"], indent=1)))
    parts += [
        ("Started", f"{run.get('started')}, configuration hash {run.get('config_hash')}"),
        ("Versions", _versions(run)),
    ]
    return page(parts)


def _settings(changed: Mapping[str, tuple[Any, Any]]) -> str:
    if not changed:
        return "none"
    width = min(max(map(len, changed)), 60)
    lines = [f"{name:<{width}}  {_short(now)}  ({_short(was)})" for name, (now, was) in changed.items()]
    more = len(lines) - _MOST_SETTINGS
    return "\n".join(lines[:_MOST_SETTINGS] + ([f"and {more} more"] if more > 0 else []))


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _revision(git: Any) -> str:
    if not isinstance(git, Mapping):
        return "not run from a clone"
    return f"{git.get('revision')}{', with files that differ from it' if git.get('changed') else ''}"


def _versions(run: Mapping[str, Any]) -> str:
    lines = [f"python {run.get('python')}, {run.get('platform')}"]
    versions = run.get("versions")
    if isinstance(versions, Mapping):
        lines += [f"{name} {version}" for name, version in versions.items() if version is not None]
    return "\n".join(lines)
