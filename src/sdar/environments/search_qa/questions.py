"""Questions, and reading them from jsonl files or from parquet files in Search-R1's layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdar.environments.search_qa.retriever import readable
from sdar.episode import Task
from sdar.errors import UserError

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class Question:
    """One question.

    ``question_id``    unique in its split
    ``task_type``      data set, or type of question
    ``golden_answers`` the correct answers; at least one
    ``solution``       actions that answer it, if they are known
    ``kind``           kind of answer in the closed world (a town, a trade, ...)
    """

    question_id: str
    task_type: str
    text: str
    golden_answers: tuple[str, ...]
    solution: tuple[str, ...] = ()
    kind: str = ""

    def task(self, split: str) -> Task:
        """The question as a task of a split. Its content hash covers the question and its answers only."""
        content = json.dumps([self.text, sorted(self.golden_answers)], ensure_ascii=False)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        return Task(f"{split}/{self.question_id}", self.task_type, self.text, split, digest, self)


class QuestionFiles:
    """The questions of a folder, with ``<split>.jsonl`` or ``<split>.parquet`` per split; ``train`` is required.

    jsonl: ``{"question", "golden_answers"}``, optionally with ``id`` and ``data_source``. parquet: Search-R1's rows
    ``data_source``, ``reward_model.ground_truth.target`` and the question in ``question`` or ``env_kwargs.question``.
    """

    def __init__(self, data_dir: str | Path) -> None:
        self._folder = Path(data_dir).expanduser()
        if not self._folder.is_dir():
            raise UserError(f"environment.data_dir must be a directory, got {data_dir}")
        shown = (path for path in self._folder.iterdir() if path.is_file() and path.name[0] not in "._")
        files = sorted(path for path in shown if path.suffix in SUFFIXES)
        self._files: dict[str, Path] = {}
        for path in files:
            if path.stem in self._files:
                raise UserError(
                    f"environment.data_dir must have one file per split, but {data_dir} has both "
                    f"{self._files[path.stem].name} and {path.name}"
                )
            self._files[path.stem] = path
        if "train" not in self._files:
            found = ", ".join(path.name for path in files) or "no jsonl or parquet file"
            raise UserError(
                f"environment.data_dir must contain train.jsonl or train.parquet, but {data_dir} has {found}"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the files, ``train`` first."""
        return ("train", *(name for name in self._files if name != "train"))

    def questions(self, split: str) -> list[Question]:
        """The questions of a split in the order of its file, without duplicates.

        Raises:
            UserError: a line or row is wrong; the message names the file, the line and the reason.
        """
        path = self._files[split]
        rows = read_jsonl(path) if path.suffix == ".jsonl" else read_parquet(path)
        found: dict[str, Question] = {}
        contents: set[str] = set()
        for number, row in enumerate(rows, start=1):
            try:
                question = question_of(row, f"{path.stem}_{number - 1}")
            except ValueError as error:
                raise UserError(f"{path}: row {number} is not a question: {error}") from error
            content = question.task(split).content_hash
            if content in contents:
                continue
            if question.question_id in found:
                raise UserError(f"{path}: row {number} has the id {question.question_id!r} of an earlier row")
            contents.add(content)
            found[question.question_id] = question
        if not found:
            raise UserError(f"{path} has no question")
        return list(found.values())


def read_jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a jsonl file. Raises UserError for a line that is not a JSON object."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}: line {number} is not JSON") from error
            if not isinstance(row, Mapping):
                raise UserError(f"{path}: line {number} is not a JSON object")
            yield row


def read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a parquet file. Raises UserError without the extra, or for any other file."""
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: parquet files need the package pyarrow; install it with: pip install 'sdar[parquet]'"
        ) from error
    from pyarrow import ArrowException

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as parquet: {error}") from error


def question_of(row: Mapping[str, Any], default_id: str) -> Question:
    """The question of a row in either layout. Raises ValueError with the missing field."""
    given = _mapping(row, "env_kwargs")
    extra = _mapping(row, "extra_info")
    source = str(row.get("data_source") or given.get("data_source") or "question")
    text = row.get("question") or given.get("question") or extra.get("question")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("it has no question (question or env_kwargs.question)")
    truth = _mapping(_mapping(row, "reward_model"), "ground_truth") or _mapping(given, "ground_truth")
    answers = _texts(row.get("golden_answers") or truth.get("target") or ())
    if not answers:
        raise ValueError("it has no answer (golden_answers or reward_model.ground_truth.target)")
    identity = row.get("id")
    if identity is None and "index" in extra:
        identity = f"{source}_{extra['index']}"
    return Question(str(identity if identity is not None else default_id), source, readable(text.strip()), answers)


def _mapping(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def _texts(value: Any) -> tuple[str, ...]:
    """One or several strings. Other values are ignored."""
    given: Iterable[Any] = [value] if isinstance(value, str) else value if isinstance(value, Iterable) else ()
    return tuple(dict.fromkeys(readable(text) for text in given if isinstance(text, str) and text.strip()))
