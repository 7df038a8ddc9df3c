"""Problems of your own, in jsonl files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdar.environments.arithmetic.rewards import GSM_MARK, Compare, number
from sdar.environments.search_qa.questions import read_jsonl
from sdar.environments.single_turn import Example
from sdar.errors import UserError
from sdar.files import FileError, brief, entries, expanded

TRAIN = "train"
KIND = "problem"
"""Type of a problem whose row does not name one."""


def splits_of(folder: Path) -> tuple[str, ...]:
    """Names of the jsonl files of a folder, ``train`` first where there is one. UserError: there is none."""
    try:
        files = entries(expanded(folder))
    except FileError as error:
        raise UserError(f"environment.data_dir={folder} {error.reason}") from error
    names = [path.stem for path in files if path.suffix == ".jsonl" and path.name[0] not in "._"]
    if not names:
        found = ", ".join(path.name for path in files[:5]) or "no file"
        raise UserError(f"environment.data_dir must contain train.jsonl, or another split, but {folder} has {found}")
    return tuple(sorted(names, key=lambda name: name != TRAIN))


def read_problems(folder: Path, split: str, compare: Compare = "number") -> list[Example]:
    """The problems of a split, in the order of its file: ``{"question", "answer"}``, optionally with ``kind``.

    Of GSM8K's solutions, which end with a mark and the final number, that number is the answer. UserError names file,
    row and reason, such as an answer without a number where answers are compared as numbers.
    """
    path = expanded(folder) / f"{split}.jsonl"
    try:
        problems = [
            _problem(row, f"{path}: row {place}", compare) for place, row in enumerate(read_jsonl(path), start=1)
        ]
    except FileError as error:
        raise UserError(f"environment.data_dir: {error}") from error
    if not problems:
        raise UserError(f"environment.data_dir: {path} has no problem")
    return problems


def _problem(row: Mapping[str, Any], place: str, compare: Compare) -> Example:
    question, answer, kind = row.get("question"), row.get("answer"), row.get("kind", KIND)
    if not isinstance(question, str) or not question.strip():
        raise UserError(f"{place} must have a text as its question, got {brief(question)}")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(answer, str) or not answer.strip():
        raise UserError(f"{place} must have a text or a number as its answer, got {brief(answer)}")
    if not isinstance(kind, str) or not kind.strip():
        raise UserError(f"{place} must have a text as its kind, or none, got {brief(kind)}")
    answer = answer.rpartition(GSM_MARK)[2].strip()
    if compare == "number" and number(answer) is None:
        raise UserError(
            f"{place} must have a number in its answer, got {brief(answer)}; environment.compare=text compares texts"
        )
    for name, text in (("question", question), ("answer", answer), ("kind", kind)):
        if not text.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UserError(f"{place} must be text that can be written, but its {name} has half a character")
    return Example(question.strip(), answer, kind)
