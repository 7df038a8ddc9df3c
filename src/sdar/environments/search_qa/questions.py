"""Questions, and reading them from jsonl files or from parquet files in Search-R1's layout."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from sdar.environments.search_qa.retriever import readable
from sdar.environments.task_list import problem_of
from sdar.episode import Task
from sdar.errors import UserError
from sdar.files import GB, MB, FileError, brief, check_regular, entries, expanded, opened, packed, parse_json

SUFFIXES = (".jsonl", ".parquet")
TRAIN = "train"
MAX_BYTES, MAX_LINE, MAX_ROWS = 4 * GB, 16 * MB, 20_000_000
"""Largest file of questions, its longest line, and most rows of a parquet file; Search-R1's have 170,000."""

_COLUMNS = frozenset(("id", "question", "golden_answers", "data_source", "env_kwargs", "extra_info", "reward_model"))


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
        """The question as a task of a split. Its content is the question and its answers; its problem, the words alone.

        So a question with other answers differs in content, and is still the same problem.
        """
        content = json.dumps([self.text, sorted(self.golden_answers)], ensure_ascii=False)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        return Task(
            f"{split}/{self.question_id}", self.task_type, self.text, split, digest, self, problem_of(self.text)
        )


class QuestionFiles:
    """The questions of a folder, with ``<split>.jsonl`` or ``<split>.parquet`` per split.

    jsonl: ``{"question", "golden_answers"}``, optionally with ``id`` and ``data_source``. parquet: Search-R1's rows
    ``data_source``, ``reward_model.ground_truth.target`` and the question in ``question`` or ``env_kwargs.question``.
    A file of passages is no split.
    """

    def __init__(self, data_dir: str | Path) -> None:
        self.folder = expanded(data_dir)
        try:
            shown = [path for path in entries(self.folder) if path.name[0] not in "._"]
        except FileError as error:
            raise UserError(f"environment.data_dir={data_dir} {error.reason}") from error
        files = [path for path in shown if path.suffix in SUFFIXES and not _is_corpus(path)]
        self._files: dict[str, Path] = {}
        for path in files:
            if path.stem in self._files:
                raise UserError(
                    f"environment.data_dir must have one file per split, but {data_dir} has both "
                    f"{self._files[path.stem].name} and {path.name}"
                )
            self._files[path.stem] = path
        if not files:
            found = ", ".join(path.name for path in shown[:5]) or "no file"
            raise UserError(
                f"environment.data_dir must contain train.jsonl or train.parquet, but {data_dir} has {found}"
            )

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the files, ``train`` first where there is one."""
        return tuple(sorted(self._files, key=lambda name: name != TRAIN))

    def training_split(self) -> str:
        """``train``. UserError where the folder has no file of it."""
        if TRAIN not in self._files:
            found = ", ".join(path.name for path in self._files.values())
            raise UserError(
                f"environment.data_dir must contain train.jsonl or train.parquet to train, but {self.folder} has "
                f"{found}; set train=false to evaluate only"
            )
        return TRAIN

    def questions(self, split: str) -> list[Question]:
        """The questions of a split in the order of its file, each once.

        The identity of a question is its data set and id: ids that several data sets use are ``<data set>/<id>``.

        Raises:
            UserError: the file cannot be read, or a line or row is wrong; the message names the file, the line and the
                reason.
        """
        path = self._files[split]
        try:
            return distinct(_numbered(path), split)
        except FileError as error:
            raise UserError(f"environment.data_dir: {error}") from error


def distinct(questions: Iterable[tuple[str, Question]], split: str) -> list[Question]:
    """Questions of a split with distinct ids, without repeated ones.

    ``questions`` come with their places, for messages. Of two with the same text and answers, or with the same data
    set, id and text, the first stays. An id of several data sets becomes ``<data set>/<id>``.

    Raises:
        UserError: there is none, or two different questions of one data set have the same id.
    """
    found: dict[tuple[str, str], Question] = {}
    contents: set[str] = set()
    place = ""
    for place, question in questions:
        content = question.task(split).content_hash
        identity = (question.task_type, question.question_id)
        earlier = found.setdefault(identity, question) if content not in contents else question
        if earlier.text != question.text:
            raise UserError(
                f"{place} has the id {question.question_id!r} of an earlier row of {question.task_type!r}; an id must "
                "be one question's of its data set"
            )
        contents.add(content)
    if not found:
        raise UserError(f"environment.data_dir: the file of the split {split!r} has no question")
    uses = Counter(question_id for _, question_id in found)
    named = [
        question if uses[question_id] == 1 else replace(question, question_id=f"{source}/{question_id}")
        for (source, question_id), question in found.items()
    ]
    twice = [name for name, count in Counter(question.question_id for question in named).items() if count > 1]
    if twice:
        raise UserError(f"environment.data_dir: the id {twice[0]!r} of the split {split!r} must be one question's")
    return named


def _numbered(path: Path) -> Iterator[tuple[str, Question]]:
    """The questions of a file, each with its place."""
    rows = read_jsonl(path) if path.suffix == ".jsonl" else read_parquet(path)
    for number, row in enumerate(rows, start=1):
        try:
            yield f"{path}: row {number}", question_of(row, f"{path.stem}_{number - 1}")
        except ValueError as error:
            raise UserError(f"{path}: row {number} is not a question: {error}") from error


def read_jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a jsonl file. UserError: it cannot be read, or a line is not a JSON object."""
    with opened(path, MAX_BYTES) as file:
        number = 0
        while line := _line(file, path):
            number += 1
            if not line.strip():
                continue
            try:
                row = parse_json(line.decode("utf-8-sig"))
            except ValueError as error:
                reason = packed(line) or ("it is not UTF-8" if isinstance(error, UnicodeError) else error)
                raise UserError(f"{path}: line {number} is not JSON ({reason})") from error
            if not isinstance(row, Mapping):
                raise UserError(f"{path}: line {number} is not a JSON object, got {brief(row)}")
            yield row


def _line(file: BinaryIO, path: Path) -> bytes:
    """The next line; empty at the end."""
    try:
        line = file.readline(MAX_LINE + 1)
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror})") from error
    if len(line) > MAX_LINE:
        raise FileError(path, f"must have lines of at most {MAX_LINE // MB} MB, got a longer one")
    return line


def read_parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of a parquet file, with the columns that a question may need.

    UserError: without the extra, for any other file, and for values that Python does not have, naming their column.
    """
    with _parquet(path) as file:
        rows = file.metadata.num_rows
        if rows > MAX_ROWS:
            raise FileError(path, f"must have at most {MAX_ROWS:,} rows, got {rows:,}")
        columns = [name for name in file.schema_arrow.names if name in _COLUMNS]
        for batch in file.iter_batches(batch_size=4096, columns=columns):
            values = [_column(path, name, batch.column(name)) for name in columns]
            yield from (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """An open parquet file. UserError: without the extra, for any other file, and for damage found in it later."""
    check_regular(path, MAX_BYTES)
    try:
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path}: parquet files need the package pyarrow; install it with: pip install 'sdar[parquet]'"
        ) from error
    from pyarrow import ArrowException

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as parquet: {reason}") from error


def _columns_of(path: Path) -> set[str]:
    with _parquet(path) as file:
        return set(file.schema_arrow.names)


def _column(path: Path, name: str, column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except Exception as error:  # times of nanoseconds, zones without a table, text that is not UTF-8, ...
        raise UserError(
            f"{path}: the column {name} must have texts and numbers, got {str(column.type)[:80]} "
            f"({type(error).__name__})"
        ) from error
    return values


def _is_corpus(path: Path) -> bool:
    """Whether a file has passages: by its name, or by the fields of its rows."""
    if path.stem == "corpus":
        return True
    try:
        fields = set(next(read_jsonl(path), {})) if path.suffix == ".jsonl" else _columns_of(path)
    except UserError:
        return False  # asked for as a split, it says what is wrong
    passage = "contents" in fields or {"title", "text"} <= fields
    return passage and fields.isdisjoint(_COLUMNS - {"id"})


def question_of(row: Mapping[str, Any], default_id: str) -> Question:
    """The question of a row in either layout. Raises ValueError with the missing field."""
    given = _mapping(row, "env_kwargs")
    extra = _mapping(row, "extra_info")
    source = _name(row.get("data_source")) or _name(given.get("data_source")) or "question"
    text = next(filter(_is_text, (row.get("question"), given.get("question"), extra.get("question"))), None)
    if text is None:
        raise ValueError("it has no question (question or env_kwargs.question)")
    answers = next(filter(None, map(_texts, _answers(row, given))), None)
    if answers is None:
        raise ValueError("it has no answer (golden_answers or reward_model.ground_truth.target)")
    identity = _name(row.get("id"))
    if not identity and _name(extra.get("index")):
        identity = f"{source}_{_name(extra['index'])}"
    return Question(identity or default_id, source, readable(text.strip()), answers)


def _answers(row: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Any]:
    """Where the answers of a row may be, in this order."""
    yield row.get("golden_answers")
    for place in (_mapping(row, "reward_model"), given):
        truth = place.get("ground_truth")
        yield truth.get("target") if isinstance(truth, Mapping) else truth


def _mapping(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _name(value: Any) -> str:
    """A text or number as a name; empty for everything else, such as the nan of an empty cell."""
    if isinstance(value, str):
        return readable(value)
    return str(value) if isinstance(value, int | float) and value == value else ""


def _texts(value: Any) -> tuple[str, ...]:
    """One or several strings, in a list or an array. Other values are ignored."""
    value = value.tolist() if hasattr(value, "tolist") else value
    given: Iterable[Any] = [value] if isinstance(value, str) else value if isinstance(value, Iterable) else ()
    return tuple(dict.fromkeys(readable(text) for text in given if isinstance(text, str) and text.strip()))
