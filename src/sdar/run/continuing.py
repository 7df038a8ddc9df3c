"""What a run takes over from the run it continues, and what differs between the two."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sdar.environments.task_list import content_hash
from sdar.episode import Task
from sdar.files import GB, FileError, check_regular
from sdar.learning.logs import tolerated
from sdar.skills.library import skills_hash

log = logging.getLogger(__name__)

SETTINGS_KEY, CONTENTS_KEY, SAVED_KEY = "sdar_settings", "sdar_contents", "sdar_saved"
"""Where a checkpoint has the settings of its run, their contents, and when it was made, in seconds since the epoch."""
CURVES_FOLDER = "tensorboard"
_LARGEST = 10 * GB
_OF_THE_RUN_ALONE = frozenset(
    {"ckpt_path", "run_dir", "logs_dir", "name", "threads", "rank_timeout_minutes"}
    | {"callbacks", "logger", "train", "evaluation"}
)
"""Settings that say where a run writes and how it is watched, not what it learns."""
_SHOWN_AT_MOST = 12
_DIGITS = 12


def differences(earlier: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Settings of learning that are not those of the continued run: name -> [its value, the present one]."""
    was, now = dict(_flat(earlier)), dict(_flat(present))
    found = [name for name in sorted(was.keys() | now.keys()) if _differs(was, now, name)]
    # A group of its own that another group holds, as algorithm.objective.gate, is named once.
    named = [name for name in found if not any(name.endswith(f".{other}") for other in found)]
    return {name: [was.get(name), now.get(name)] for name in named}


def contents(settings: Mapping[str, Any], tasks: Sequence[Task]) -> dict[str, str]:
    """What a run learns from that its settings only name, so that it may change in its place: name -> hash."""
    hashes = {"skills (content hash)": skills_hash(settings), "training tasks (content hash)": content_hash(tasks)}
    return {name: digest[:_DIGITS] for name, digest in hashes.items() if digest is not None}


def other_contents(earlier: Mapping[str, Any], present: Mapping[str, str]) -> dict[str, list[Any]]:
    """Contents that are not those of the continued run, as :func:`differences`, where both have some."""
    return {name: [earlier[name], now] for name, now in present.items() if earlier.get(name, now) != now}


def told(found: Mapping[str, list[Any]]) -> str:
    """One line about :func:`differences`."""
    parts = [f"{name} {_short(was)} -> {_short(now)}" for name, (was, now) in found.items()]
    more = f" and {len(parts) - _SHOWN_AT_MOST} more" if len(parts) > _SHOWN_AT_MOST else ""
    shown = ", ".join(parts[:_SHOWN_AT_MOST])
    return f"settings that differ from those of the run before, and hold from now on: {shown}{more}"


def take_curves(checkpoint: Path, folder: Path, saved: float) -> None:
    """Copy what the continued run told TensorBoard before ``saved``: the curves of this run begin where those began.

    What it told later, of iterations that are not behind the checkpoint, will be told anew.
    """
    source = checkpoint.parent.parent / CURVES_FOLDER
    target = folder / CURVES_FOLDER
    files = sorted(source.glob("events.out.tfevents.*"))
    if not files or source.resolve() == target.resolve():
        return
    with tolerated(str(target)):
        target.mkdir(parents=True, exist_ok=True)
        writer = EventFileWriter(str(target))
        for file in files:
            for event in _events(file):
                if event.wall_time <= saved and event.HasField("summary"):
                    writer.add_event(event)
        writer.close()


def _events(file: Path) -> Iterator[Any]:
    """The events of a file, up to where it is damaged."""
    try:
        check_regular(file, _LARGEST)
        yield from LegacyEventFileLoader(str(file)).Load()
    except Exception as error:  # whatever changed bytes lead to: a run needs its curves least of all
        reason = error.reason if isinstance(error, FileError) else f"is damaged ({type(error).__name__})"
        log.warning("%s %s; what was read of its curves is taken over", file, reason)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if not prefix and name in _OF_THE_RUN_ALONE:
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _differs(was: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    return name not in was or name not in now or was[name] != now[name]


def _short(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
