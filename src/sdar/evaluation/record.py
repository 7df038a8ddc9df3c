"""A record of panels that were played, so that runs from the same weights play theirs once.

Every run begins with the panel of its start weights, and most start from the same ones. A record is a file in the cache
folder, named by the hash of all that decides its episodes: it stands for playing them, to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar.episode import Episode, Task
from sdar.evaluation.conditions import are_known, conditions
from sdar.evaluation.plain import from_plain, to_plain
from sdar.files import MB, FileError, cache_root, parse_json, read_text
from sdar.rollout.collector import Collector

log = logging.getLogger(__name__)

MOST_BYTES = 256 * MB
"""Size of all records together; those that were not used for longest make room."""
_LARGEST = 64 * MB
_ABANDONED_S = 86_400.0
"""Age of a half-written file that nobody finishes any more, in seconds."""


@dataclass(frozen=True)
class Recorded:
    """The place of one record: what its episodes depend on, in plain values, and the tasks by their ids."""

    folder: Path
    facts: Mapping[str, Any]
    tasks: Mapping[str, Task]

    @property
    def path(self) -> Path:
        """Where it is, or will be."""
        return self.folder / f"{_hash(json.dumps(self.facts, sort_keys=True))}.jsonl"

    def read(self) -> list[Episode] | None:
        """The episodes; None: there is no record, or one that is damaged or another's, of which a warning tells."""
        try:
            self.path.stat()
        except OSError:
            return None
        try:
            head, _, body = read_text(self.path, _LARGEST).partition("\n")
            body = body.removesuffix("\n")
            if parse_json(head) != self._head(body):
                raise ValueError("it is damaged, or that of another panel")
            episodes: list[Episode] = from_plain(parse_json(body), self.tasks)
        except (FileError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = error.reason if isinstance(error, FileError) else f"cannot be used ({error})"
            log.warning("the record of a panel %s %s; the panel is played", self.path, reason)
            return None
        with suppress(OSError):
            os.utime(self.path)  # it is in use
        return episodes

    def write(self, episodes: Sequence[Episode]) -> None:
        """Record the episodes, whole or not at all. Without those that errors ended: such a panel is played again.

        A folder that cannot be written is told of, and changes nothing.
        """
        if any(episode.end.is_error for episode in episodes):
            return
        try:
            body = _dumped(to_plain(list(episodes)))  # a number that is not finite is none of JSON's
            head = _dumped(self._head(body))
        except (TypeError, ValueError) as error:
            log.info("the panel is not recorded (%s)", error)
            return
        if len(head) + len(body) > _LARGEST or from_plain(json.loads(body), self.tasks) != list(episodes):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._replace(f"{head}\n{body}\n")
            self._make_room()
        except OSError as error:
            log.warning("the panel cannot be recorded in %s (%s)", self.folder, error.strerror or error)

    def _head(self, body: str) -> dict[str, Any]:
        return {"facts": self.facts, "hash": _hash(body)}

    def _replace(self, text: str) -> None:
        part = self.path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        try:
            part.write_text(text, encoding="ascii")
            part.replace(self.path)
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """Remove the records that were used longest ago. Other runs may do so at the same time."""
        found: list[tuple[float, int, Path]] = []
        for file in self.folder.iterdir():
            with suppress(OSError):
                status = file.stat()
                if file.suffix == ".jsonl":
                    found.append((status.st_mtime, status.st_size, file))
                elif file.suffix == ".part" and status.st_mtime < time.time() - _ABANDONED_S:
                    file.unlink()
        room = MOST_BYTES
        for _, size, file in sorted(found, reverse=True):
            room -= size
            if room < 0:
                with suppress(OSError):
                    file.unlink()


@dataclass(frozen=True)
class PanelRecords:
    """The records that a run may use.

    ``folder``  where they are
    ``terms``   what episodes depend on beside the collector and what it plays, in plain values: settings of the
                environment, precision, versions of packages
    """

    folder: Path
    terms: Mapping[str, Any]

    @classmethod
    def of(cls, collector: Collector, terms: Mapping[str, Any], folder: Path | None = None) -> PanelRecords | None:
        """Those of a collector, as it will play; None: its episodes may depend on something that has no name.

        ``folder`` None: ``panels`` in the cache folder (``$SDAR_CACHE``, or the user's).
        """
        return cls(folder or cache_root(None) / "panels", terms) if are_known(collector) else None

    def place(
        self,
        collector: Collector,
        tasks: Sequence[Task],
        *,
        seed: int,
        key: tuple[int | str, ...],
        texts: Sequence[str] | None,
    ) -> Recorded:
        """The record of one pass over tasks with the present weights, see :meth:`Collector.collect`.

        ``texts``: privileged text of each task; None: there is none.
        """
        facts = {"seed": seed, "key": list(key), **conditions(collector, tasks, texts), **self.terms}
        plain = json.loads(json.dumps(facts, default=str))
        return Recorded(self.folder, plain, {task.task_id: task for task in tasks})


def _dumped(value: Any) -> str:
    """JSON in ASCII characters and one line."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
