"""The recorded episodes of a run, read within bounds and made ready to be shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sdar.errors import UserError
from sdar.files import GB, MB, FileError, opened, parse_json
from sdar.output.printable import printable

FILE_NAME = "episodes.jsonl"

LONGEST_TEXT = 20_000
"""Characters of a text that are shown; the file has the rest."""
_FILE, _LINE = 4 * GB, 64 * MB
"""A file beyond the first is not read, and a line beyond the second is passed over as damaged."""
_TURNS, _SIBLINGS, _WORD = 1000, 64, 200


class Tokens(NamedTuple):
    """The sampled tokens of a turn. Log-probs in thousandths of a nat, gates in thousandths; None: not finite."""

    texts: list[str]
    student: list[int | None]
    teacher: list[int | None]
    gates: list[int | None]

    def gaps(self) -> list[int | None]:
        """Teacher minus student log-prob, thousandths of a nat."""
        pairs = zip(self.student, self.teacher, strict=True)
        return [None if student is None or teacher is None else teacher - student for student, teacher in pairs]


@dataclass(frozen=True)
class Turn:
    """One response. ``advantage`` is None where nothing was learned from it, ``tokens`` where none were recorded."""

    observation: str
    text: str
    action: str
    valid: bool
    truncated: bool
    reward: float
    advantage: float | None
    tokens: Tokens | None


@dataclass(frozen=True)
class Sibling:
    """Another member of the group."""

    member: int
    outcome: str
    end: str
    episode_return: float
    advantage: float | None
    actions: list[str]


@dataclass(frozen=True)
class Recorded:
    """A recorded episode whose texts may be shown anywhere: see :func:`sdar.output.printable.printable`.

    ``iteration``  None: it was played in an evaluation
    ``played_by``  the agent's name in an evaluation; empty in training
    ``outcome``    solved, failed, or error
    ``reads``      what the teacher read; None: no teacher was scored
    """

    iteration: int | None
    played_by: str
    task: str
    task_type: str
    description: str
    member: int
    outcome: str
    end: str
    episode_return: float
    error: str
    opening: str
    reads: str | None
    turns: list[Turn]
    last_observation: str
    siblings: list[Sibling]

    def gap_range(self) -> tuple[int, int] | None:
        """The least and the greatest gap of a token, thousandths of a nat; None: no figures."""
        gaps = [gap for turn in self.turns if turn.tokens for gap in turn.tokens.gaps() if gap is not None]
        return (min(gaps), max(gaps)) if gaps else None

    def texts(self) -> Iterator[str]:
        """Every text of the episode, for a search."""
        yield from (self.task, self.task_type, self.description, self.error, self.opening, self.reads or "")
        for turn in self.turns:
            yield from (turn.observation, turn.text, turn.action)
        yield self.last_observation


@dataclass
class Reading:
    """What was met on the way through a file. ``damaged`` lines were passed over."""

    damaged: int = 0


def episodes_file(run: Path) -> Path:
    """The file with a run's episodes: that of its folder, or the very file. UserError: there is none."""
    if run.is_dir():
        file = run / FILE_NAME
        if not file.exists():
            raise UserError(f"{run} has no {FILE_NAME}; it must be the folder of a run that recorded episodes")
        return file
    if not run.exists():
        raise UserError(f"RUN must be the folder of a run, or its {FILE_NAME}, got {run}, which does not exist")
    return run


def read_episodes(file: Path, reading: Reading | None = None) -> Iterator[Recorded]:
    """The episodes in a file, in its order. A line that is none, or half of one, is counted and passed over.

    UserError: the file cannot be read.
    """
    reading = reading or Reading()
    with opened(file, _FILE) as lines:
        while True:
            try:
                line = lines.readline(_LINE)
            except OSError as error:
                raise FileError(file, f"cannot be read ({error.strerror or error})") from error
            if not line:
                return
            if len(line) >= _LINE and not line.endswith(b"\n"):
                while (rest := lines.readline(_LINE)) and not rest.endswith(b"\n"):
                    pass
                reading.damaged += 1
            elif line.strip():
                episode = _episode(line)
                if episode is None:
                    reading.damaged += 1
                else:
                    yield episode


def _episode(line: bytes) -> Recorded | None:
    try:
        record = parse_json(line.decode("utf-8", "replace"))
        return _recorded(record) if isinstance(record, dict) else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _recorded(record: Mapping[str, Any]) -> Recorded:
    """The episode of a line. ValueError, TypeError, KeyError, ...: it is none."""
    iteration, read, last = record.get("iteration"), record.get("teacher_reads"), record.get("last_observation")
    return Recorded(
        iteration=None if iteration is None else int(iteration),
        played_by=_word(record.get("evaluation")),
        task=_word(record["task"]),
        task_type=_word(record["task_type"]),
        description=_text(record["description"])[:1000],
        member=int(record["member"]),
        outcome=_outcome(record),
        end=_word(record["end"]),
        episode_return=_number(record["return"]) or 0.0,
        error=_text(record.get("error")),
        opening="\n\n".join(filter(None, (_text(record.get("preface")), _text(record.get("opening"))))),
        reads=None if read is None else _text(read),
        turns=[_turn(turn) for turn in record["turns"][:_TURNS]],
        last_observation=_text(last),
        siblings=[_sibling(sibling) for sibling in record.get("group", [])[:_SIBLINGS]],
    )


def _turn(turn: Mapping[str, Any]) -> Turn:
    return Turn(
        observation=_text(turn["observation"]),
        text=_text(turn["text"]),
        action=_text(turn["action"])[:1000],
        valid=bool(turn["valid"]),
        truncated=bool(turn["truncated"]),
        reward=_number(turn["reward"]) or 0.0,
        advantage=_number(turn.get("advantage")),
        tokens=_tokens(turn),
    )


def _tokens(turn: Mapping[str, Any]) -> Tokens | None:
    """None: the turn has none, or only some of them, as runs of older versions wrote."""
    if not {"tokens", "student", "teacher", "gates"} <= turn.keys():
        return None
    texts = [_text(token)[:_WORD] for token in turn["tokens"]]
    columns = [[_thousandths(value) for value in turn[name]] for name in ("student", "teacher", "gates")]
    if {len(column) for column in columns} != {len(texts)}:
        raise ValueError("columns of different lengths")
    return Tokens(texts, *columns)


def _sibling(sibling: Mapping[str, Any]) -> Sibling:
    return Sibling(
        member=int(sibling["member"]),
        outcome=_outcome(sibling),
        end=_word(sibling["end"]),
        episode_return=_number(sibling["return"]) or 0.0,
        advantage=_number(sibling["advantage"]),
        actions=[_word(action) for action in sibling["actions"]],
    )


def _outcome(record: Mapping[str, Any]) -> str:
    if str(record["end"]).startswith("error_"):
        return "error"
    return "solved" if record["success"] else "failed"


def _text(value: object) -> str:
    """A text as it may be shown, cut where it is very long; the cut is told."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("not a text")
    over = len(value) - LONGEST_TEXT
    shown = printable(value[:LONGEST_TEXT].replace("\r\n", "\n"))
    return shown if over <= 0 else f"{shown} [{over:,} more characters are in the file]"


def _word(value: object) -> str:
    return _text(value)[:_WORD].replace("\n", " ")


def _number(value: object) -> float | None:
    if value is None:
        return None
    number = float(value)  # type: ignore[arg-type]
    return round(number, 4) if math.isfinite(number) else None


def _thousandths(value: object) -> int | None:
    number = _number(value)
    return None if number is None else round(1000 * number)


def strongest(turns: Sequence[Turn], count: int) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The tokens that the teacher rejected most and endorsed most, with their gaps in thousandths of a nat."""
    pairs = [
        (text, gap)
        for turn in turns
        if turn.tokens
        for text, gap in zip(turn.tokens.texts, turn.tokens.gaps(), strict=True)
        if gap
    ]
    pairs.sort(key=lambda pair: pair[1])
    return [p for p in pairs[:count] if p[1] < 0], [p for p in pairs[::-1][:count] if p[1] > 0]
