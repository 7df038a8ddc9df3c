"""The published ALFWorld dataset in the layouts of ``alfworld-download``, the present one and earlier ones.

``data_dir/json_2.1.1/<split>/<task>/<trial>/`` holds ``game.tw-pddl`` (one JSON object: pddl_domain, grammar,
pddl_problem, solvable, walkthrough) and usually ``traj_data.json``; ``data_dir`` may also be the folder of the splits.
Which trials count follows ALFWorld 0.4.2 (``agents/environment/alfred_tw_env.py``): no movable receptacles, nothing
sliced, one of the six task types, verified to be solvable. Only the problem, the task and the walkthrough are read from
a file. Domain and grammar come from the installed package, so that nothing in a data file is ever evaluated.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sdar.environments.alfworld.engine import GameError
from sdar.environments.alfworld.game import TASK_TYPES, Game
from sdar.errors import UserError
from sdar.files import FileError, entries, expanded, read_json

logger = logging.getLogger(__name__)

VERSION_FOLDER = "json_2.1.1"
_VERSION = "json_2."
SPLITS = ("train", "valid_seen", "valid_unseen")
GAME_FILE = "game.tw-pddl"
TRAJECTORY_FILE = "traj_data.json"
MAX_FILE_BYTES = 16_000_000
"""Real files have about 70 kB."""

DAMAGED = "damaged"
UNSUPPORTED = "movable or sliced"
WRONG_TYPE = "another task type"
UNSOLVABLE = "unsolvable"
UNCHECKED = "not checked to be solvable"
NO_GAME = "without a game file"

_TASK = re.compile(r'"Your task is to: ((?:[^"\\.]|\\.|\.(?!"))*+)(\.")?')
"""Of a text that does not end as a task does, the second group is missing; what it takes is not read again."""
_PRINTABLE_TASK = re.compile(r"[^;|\"<>\[\]#{}\\\n\t]+")
_CURRENT_COMMANDS = "move {o} to {r}"
_OLD_MOVE = re.compile(r"put (.+) in/on (.+)")
"""How ALFWorld before 0.4 says "move X to Y"; its other commands are today's."""
_MAX_NAMED = 20


@dataclass(frozen=True)
class GameEntry:
    """A valid game of the dataset. Its problem stays on disk until :meth:`load`."""

    path: Path
    game_id: str
    task_type: str
    task_text: str
    split: str
    content_hash: str
    walkthrough: tuple[str, ...]

    def load(self) -> Game:
        """Read the game again. Raises :class:`GameError` if the file is missing or has changed since it was listed."""
        document, _ = _read_document(self.path, self.game_id)
        game = _game(document, self.game_id, self.task_type, self.split)
        if game.content_hash != self.content_hash:
            raise GameError(f"game {self.game_id}: {self.path} has changed since it was listed")
        return game


GameSource = Game | GameEntry
"""A game in memory or on disk: the payload of a task."""


@dataclass(frozen=True)
class Listing:
    """Games of one split in the order of their ids, and the number of skipped trials by reason."""

    entries: tuple[GameEntry, ...]
    skipped: Mapping[str, int]


class _LeftOutError(Exception):
    """A skipped trial; ``reason`` is the category it is counted in."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def list_games(data_dir: str | Path, split: str) -> Listing:
    """All playable games of a split (about half a millisecond each).

    Skipped trials are counted in the log, and damaged files are named there. Raises UserError if the folder does not
    exist or no game is left.
    """
    folder = _split_folder(expanded(data_dir), split)
    entries: list[GameEntry] = []
    skipped: Counter[str] = Counter()
    damaged: list[str] = []
    outdated = 0
    for trial in _trials(folder):
        try:
            entry, is_current = _entry(trial, folder, split)
        except _LeftOutError as skip:
            skipped[skip.reason] += 1
            if skip.reason == DAMAGED:
                damaged.append(str(skip))
            continue
        entries.append(entry)
        outdated += not is_current
    for message in damaged[:_MAX_NAMED]:
        logger.warning("%s; it is skipped", message)
    if len(damaged) > _MAX_NAMED:
        logger.warning("and %d more damaged files", len(damaged) - _MAX_NAMED)
    if outdated:
        logger.warning(
            "%d games of %s were written for an ALFWorld before 0.4; they are played with the current commands (move X "
            "to Y instead of put X in/on Y)",
            outdated,
            folder,
        )
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items())) or "none"
    logger.info("%s: %d games; skipped: %s", folder, len(entries), counts)
    if not entries:
        unmade = skipped[NO_GAME] + skipped[UNCHECKED]
        remedy = "; alfworld-generate, of the package alfworld >= 0.4, makes and checks them" if unmade else ""
        raise UserError(
            f"environment.data_dir must contain playable games, but {folder} has none (skipped: {counts}){remedy}"
        )
    return Listing(tuple(entries), dict(skipped))


def available_splits(data_dir: str | Path) -> tuple[str, ...]:
    """Splits whose folders exist. Raises UserError if there is none."""
    root = expanded(data_dir)
    found = tuple(split for split in SPLITS if _is_folder(_version_folder(root) / split))
    if not found:
        _split_folder(root, SPLITS[0])
    return found


def _version_folder(root: Path) -> Path:
    """Where the splits are: in ``json_2.1.1``, in the only other folder named like a version, or in ``root`` itself."""
    named = root / VERSION_FOLDER
    if _is_folder(named) or not _is_folder(root):
        return named
    if any(_is_folder(root / split) for split in SPLITS):
        return root
    try:
        others = [path for path in entries(root) if path.name.startswith(_VERSION) and _is_folder(path)]
    except FileError:
        return named
    return others[0] if len(others) == 1 else named


def _is_folder(path: Path) -> bool:
    # Path.is_dir raises where a folder above may not be entered or a name is too long
    return os.path.isdir(path)  # noqa: PTH112


def _split_folder(root: Path, split: str) -> Path:
    if not _is_folder(root):
        raise UserError(f"environment.data_dir must be a directory, got {root}")
    if split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    folder = _version_folder(root) / split
    if not _is_folder(folder):
        raise UserError(
            f"environment.data_dir must have the layout of alfworld-download, but {root} has no directory "
            f"{VERSION_FOLDER}/{split}"
        )
    try:
        entries(folder)
    except FileError as error:
        raise UserError(f"environment.data_dir: {error}") from error
    return folder


def _trials(folder: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """Folders of trials with their files, sorted by path."""
    found = [
        (Path(root), frozenset(files) & {GAME_FILE, TRAJECTORY_FILE})
        for root, _, files in os.walk(folder, onerror=_unread)
        if GAME_FILE in files or TRAJECTORY_FILE in files
    ]
    yield from sorted(found, key=lambda trial: trial[0].relative_to(folder).as_posix())


def _unread(error: OSError) -> None:
    logger.warning("%s cannot be read (%s); its games are skipped", error.filename, error.strerror)


def _entry(trial: tuple[Path, frozenset[str]], folder: Path, split: str) -> tuple[GameEntry, bool]:
    path, files = trial
    name = path.relative_to(folder).as_posix()
    game_id = f"{split}/{name}"
    if "movable" in name or "Sliced" in name:
        raise _LeftOutError(UNSUPPORTED)
    try:
        if TRAJECTORY_FILE in files:
            task_type = _read_json(path / TRAJECTORY_FILE, game_id).get("task_type")
        else:
            task_type = name.split("/")[0].split("-")[0]
        if task_type not in TASK_TYPES:
            raise _LeftOutError(WRONG_TYPE)
        if GAME_FILE not in files:
            raise _LeftOutError(NO_GAME)
        document, is_current = _read_document(path / GAME_FILE, game_id)
        if document.get("solvable") is None:
            raise _LeftOutError(UNCHECKED)
        if not document["solvable"]:
            raise _LeftOutError(UNSOLVABLE)
        game = _game(document, game_id, task_type, split)
    except GameError as error:
        raise _LeftOutError(DAMAGED, str(error)) from error
    walkthrough = game.walkthrough
    entry = GameEntry(path / GAME_FILE, game_id, task_type, game.task_text, split, game.content_hash, walkthrough)
    return entry, is_current


def _read_json(path: Path, game_id: str) -> dict[str, object]:
    try:
        document = read_json(path, MAX_FILE_BYTES)
    except FileError as error:
        raise GameError(f"game {game_id}: {error}") from error
    if not isinstance(document, dict):
        raise GameError(f"game {game_id}: {path} must contain one JSON object")
    return document


def _read_document(path: Path, game_id: str) -> tuple[dict[str, object], bool]:
    """A game file, and whether it uses the commands of the installed ALFWorld."""
    document = _read_json(path, game_id)
    for key in ("pddl_problem", "grammar"):
        if not isinstance(document.get(key), str):
            raise GameError(f"game {game_id}: {path} must have a string {key!r}")
    return document, _CURRENT_COMMANDS in str(document["grammar"])


def _game(document: dict[str, object], game_id: str, task_type: str, split: str) -> Game:
    grammar = str(document["grammar"])
    match = next((found for found in _TASK.finditer(grammar) if found[2]), None)
    if match is None or _PRINTABLE_TASK.fullmatch(match.group(1)) is None:
        raise GameError(f"game {game_id}: the grammar has no printable task")
    walkthrough = document.get("walkthrough") or []
    if not isinstance(walkthrough, list) or not all(isinstance(command, str) for command in walkthrough):
        raise GameError(f"game {game_id}: 'walkthrough' must be a list of commands")
    known = tuple(walkthrough) if _CURRENT_COMMANDS in grammar else tuple(map(_current, walkthrough))
    game = Game(game_id, task_type, match.group(1), str(document["pddl_problem"]), split, known)
    try:
        "".join((game.task_text, game.problem, *known)).encode()
    except UnicodeEncodeError as error:  # a lone surrogate, which JSON can encode
        raise GameError(f"game {game_id}: it has characters that are not valid text") from error
    return game


def _current(command: str) -> str:
    """A command of an earlier ALFWorld as the present one says it."""
    # where no line ends, the pattern cannot fail behind the words that it looks for, again and again
    found = None if "\n" in command else _OLD_MOVE.fullmatch(command)
    return command if found is None else f"move {found[1]} to {found[2]}"
