"""Questions from files: jsonl, Search-R1's parquet rows, and all mistakes in either."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdar.environments.base import training_tasks
from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.questions import MAX_ROWS, QuestionFiles, question_of
from sdar.environments.search_qa.retriever import Found, Retriever
from sdar.errors import UserError
from sdar.evaluation.panel import assert_disjoint, default_split, make_panel

ROW = {"id": "nq_1", "question": "who wrote it?", "golden_answers": ["Ada Berg", "A. Berg"], "data_source": "nq"}
SEARCH_R1 = {
    "data_source": "hotpotqa",
    "prompt": [{"role": "user", "content": "a template with the question inside"}],
    "ability": "fact-reasoning",
    "reward_model": {"style": "rule", "ground_truth": {"target": ["Bath, Maine"]}},
    "extra_info": {"split": "train", "index": 7},
    "env_kwargs": {
        "ground_truth": {"target": ["Bath, Maine"]},
        "question": "Where from?",
        "data_source": "hotpotqa",
    },
}


class Nothing(Retriever):
    def search(self, queries: Any, top_k: int) -> list[Found]:
        return [[] for _ in queries]


def jsonl(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.parent


def test_jsonl_is_read_in_its_order_with_every_answer(tmp_path: Path) -> None:
    folder = jsonl(tmp_path / "train.jsonl", ROW, {"question": "b?", "golden_answers": "one"}, ROW | {"id": "copy"})
    questions = QuestionFiles(folder).questions("train")
    assert [q.question_id for q in questions] == ["nq_1", "train_1"]  # no duplicates
    assert questions[0].golden_answers == ("Ada Berg", "A. Berg")
    assert questions[0].task_type == "nq"
    assert questions[1].golden_answers == ("one",)


@pytest.mark.parametrize(
    ("row", "refused"),
    [
        ({"golden_answers": ["Ada Berg", "A. Berg"]}, True),
        ({"golden_answers": ["Ada"]}, True),
        ({"golden_answers": ["Ada"], "data_source": "popqa"}, True),
        ({"question": "  Who\twrote  IT? "}, True),
        ({"question": "who wrote them?"}, False),
    ],
)
def test_a_panel_that_shares_a_question_with_training_is_refused(
    tmp_path: Path, row: dict[str, Any], refused: bool
) -> None:
    jsonl(tmp_path / "train.jsonl", ROW)
    jsonl(tmp_path / "test.jsonl", {"question": "and who sang it?", "golden_answers": ["B"]}, ROW | {"id": "x"} | row)
    environment = SearchQAEnvironment(data_dir=tmp_path, search_engine=Nothing())
    panel = make_panel(environment, None, 2, 0)
    if not refused:
        assert_disjoint(panel, environment.tasks("train"))
        return
    with pytest.raises(UserError, match="1 of the panel's 2 tasks are training tasks, for example test/x"):
        assert_disjoint(panel, environment.tasks("train"))


def test_search_r1s_parquet_rows_are_read(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    plain = {key: value for key, value in SEARCH_R1.items() if key != "env_kwargs"} | {"question": "Where from?"}
    for name, row in (("train", SEARCH_R1), ("test", plain)):
        parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
    files = QuestionFiles(tmp_path)
    assert files.splits == ("train", "test")
    for split in files.splits:
        (question,) = files.questions(split)
        assert (question.question_id, question.task_type) == ("hotpotqa_7", "hotpotqa")
        assert (question.text, question.golden_answers) == ("Where from?", ("Bath, Maine",))


def test_parquet_without_the_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"sdar\[parquet\]"):
        QuestionFiles(tmp_path).questions("train")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UserError, match=r"train\.parquet cannot be read"):
        QuestionFiles(tmp_path).questions("train")


@pytest.mark.parametrize(
    ("row", "mentioned"),
    [
        ({"golden_answers": ["x"]}, "row 1 is not a question: it has no question"),
        ({"question": "a?"}, "row 1 is not a question: it has no answer"),
        ({"question": "a?", "golden_answers": [" "]}, "it has no answer"),
        ({"question": "a?", "golden_answers": [3]}, "it has no answer"),
        ([1], "line 1 is not a JSON object"),
    ],
)
def test_a_row_that_is_no_question_is_named(tmp_path: Path, row: Any, mentioned: str) -> None:
    with pytest.raises(UserError, match=mentioned):
        QuestionFiles(jsonl(tmp_path / "train.jsonl", row)).questions("train")


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"question"\n')
    with pytest.raises(UserError, match="line 1 is not JSON"):
        QuestionFiles(tmp_path).questions("train")


def test_a_byte_order_mark_is_no_mistake_and_broken_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n \r\n")
    assert len(QuestionFiles(tmp_path).questions("train")) == 1
    for broken in (b'{"question": "\xff"}', b"[" * 100_000):
        file.write_bytes(json.dumps(ROW).encode() + b"\n" + broken)
        with pytest.raises(UserError, match="line 2 is not JSON"):
            QuestionFiles(tmp_path).questions("train")


def test_half_a_surrogate_pair_in_a_question_is_made_readable(tmp_path: Path) -> None:
    folder = jsonl(tmp_path / "train.jsonl", ROW | {"question": "who \ud800?", "golden_answers": ["\ud800"]})
    (question,) = QuestionFiles(folder).questions("train")
    assert (question.text, question.golden_answers) == ("who \ufffd?", ("\ufffd",))


def test_different_questions_with_one_id_are_refused(tmp_path: Path) -> None:
    folder = jsonl(tmp_path / "train.jsonl", ROW, ROW | {"question": "another?"})
    with pytest.raises(UserError, match="row 2 has the id 'nq_1' of an earlier row of 'nq'"):
        QuestionFiles(folder).questions("train")


def test_folders_without_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"environment\.data_dir=.*none must be a directory, got nothing"):
        QuestionFiles(tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"must contain train\.jsonl or train\.parquet, but .* has notes\.txt"):
        QuestionFiles(tmp_path)
    jsonl(tmp_path / "both" / "train.jsonl", ROW)
    (tmp_path / "both" / "train.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="one file per split"):
        QuestionFiles(tmp_path / "both")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "train.jsonl").write_text("\n")
    with pytest.raises(UserError, match="has no question"):
        QuestionFiles(tmp_path / "empty").questions("train")


def test_tasks_are_typed_by_their_data_set_and_compared_by_content(tmp_path: Path) -> None:
    jsonl(tmp_path / "train.jsonl", ROW)
    jsonl(tmp_path / "test.jsonl", ROW | {"id": "other name", "golden_answers": ["A. Berg", "Ada Berg"]})
    environment = SearchQAEnvironment(data_dir=tmp_path, search_engine=Nothing())
    (first,), (second,) = environment.tasks("train"), environment.tasks("test")
    assert (first.task_id, first.task_type) == ("train/nq_1", "nq")
    assert first.content_hash == second.content_hash
    assert environment.expert(first) is None
    assert environment.baselines() == {}


# Search-R1's merged files --------------------------------------------------------------------------------------------


def merged(row_id: str, source: str, text: str = "", answers: Any = ("x",)) -> dict[str, Any]:
    return {"id": row_id, "question": text or f"{source} {row_id}?", "golden_answers": answers, "data_source": source}


def test_an_id_of_several_data_sets_names_its_data_set(tmp_path: Path) -> None:
    rows = [merged("train_0", "nq"), merged("train_1", "nq"), merged("train_0", "hotpotqa"), merged("train_0", "nq")]
    folder = jsonl(tmp_path / "train.jsonl", *rows)
    ids = [question.question_id for question in QuestionFiles(folder).questions("train")]
    assert ids == ["nq/train_0", "train_1", "hotpotqa/train_0"]
    assert [question.question_id for question in QuestionFiles(folder).questions("train")] == ids
    jsonl(tmp_path / "other" / "train.jsonl", *rows[::-1])
    assert {q.question_id for q in QuestionFiles(tmp_path / "other").questions("train")} == set(ids)


def test_a_question_that_is_repeated_is_taken_once_whatever_its_answers(tmp_path: Path) -> None:
    rows = [
        merged("1", "nq", "who?", ["a"]),
        merged("1", "nq", "who?", ["a", "b"]),
        merged("1", "popqa", "who?", ["a"]),
    ]
    (question,) = QuestionFiles(jsonl(tmp_path / "train.jsonl", *rows)).questions("train")
    assert (question.question_id, question.golden_answers) == ("1", ("a",))


def test_an_id_that_another_question_bears_is_refused(tmp_path: Path) -> None:
    rows = [merged("0", "nq"), merged("0", "popqa"), merged("nq/0", "hotpotqa")]
    with pytest.raises(UserError, match=r"the id 'nq/0' of the split 'train' must be one question's"):
        QuestionFiles(jsonl(tmp_path / "train.jsonl", *rows)).questions("train")


@pytest.mark.parametrize(
    "fields",
    [
        {"golden_answers": np.array(["a", "b"], dtype=object)},
        {"golden_answers": ["a", "b"], "reward_model": None},
        {"golden_answers": [], "reward_model": {"ground_truth": {"target": np.array(["a", "b"])}}},
        {"reward_model": {"style": "rule", "ground_truth": {"target": ("a", "b")}}},
        {"reward_model": {"style": "rule", "ground_truth": ["a", "b"]}},
        {"golden_answers": None, "env_kwargs": {"ground_truth": {"target": ["a", "b"]}}},
    ],
)
def test_answers_are_found_in_every_published_layout(fields: dict[str, Any]) -> None:
    question = question_of({"question": "who?", "id": float("nan"), "data_source": None} | fields, "train_7")
    assert (question.golden_answers, question.question_id, question.task_type) == (("a", "b"), "train_7", "question")


def test_only_the_columns_of_a_question_are_read_and_an_odd_one_is_named(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    odd = pyarrow.array([1], pyarrow.timestamp("ns", tz="Mars/Olympus"))
    table = pyarrow.Table.from_pylist([ROW])
    parquet.write_table(table.append_column("metadata", odd), tmp_path / "train.parquet")
    parquet.write_table(table.append_column("extra_info", odd), tmp_path / "test.parquet")
    files = QuestionFiles(tmp_path)
    assert len(files.questions("train")) == 1
    with pytest.raises(
        UserError, match=r"test\.parquet: the column extra_info must have texts and numbers, got timest"
    ):
        files.questions("test")


def test_a_small_parquet_file_of_countless_rows_is_refused(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = pyarrow.table({"note": pyarrow.repeat(pyarrow.scalar(0, pyarrow.int8()), MAX_ROWS + 1)})
    parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train\.parquet must have at most 20,000,000 rows, got 20,000,001"):
        QuestionFiles(tmp_path).questions("train")


# Folders and files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("make", "found"),
    [(os.mkfifo, "a named pipe"), (Path.mkdir, "a directory"), (lambda path: path.symlink_to("/dev/zero"), "a device")],
)
def test_a_split_that_is_no_file_is_refused_without_reading_it(
    tmp_path: Path, make: Any, found: str, suffix: str
) -> None:
    make(tmp_path / f"train.{suffix}")
    with pytest.raises(UserError, match=rf"data_dir: .*train\.{suffix} must be a regular file, got {found}$"):
        QuestionFiles(tmp_path).questions("train")


def test_a_line_without_an_end_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "train.jsonl").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UserError, match=r"train\.jsonl must have lines of at most 16 MB, got a longer one"):
        QuestionFiles(tmp_path).questions("train")
    (tmp_path / "train.jsonl").write_bytes(gzip.compress(json.dumps(ROW).encode()))
    with pytest.raises(UserError, match=r"line 1 is not JSON \(gzip data, which must be unpacked\)"):
        QuestionFiles(tmp_path).questions("train")


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.parquet", "wiki-18.jsonl"])
def test_passages_beside_the_questions_are_no_split(tmp_path: Path, name: str) -> None:
    jsonl(tmp_path / "train.jsonl", ROW)
    jsonl(tmp_path / "test.jsonl", ROW | {"question": "b?"})
    jsonl(tmp_path / name, {"id": "1", "contents": '"A"\ntext'})
    files = QuestionFiles(tmp_path)
    assert files.splits == ("train", "test")
    assert default_split(SearchQAEnvironment(data_dir=tmp_path, search_engine=Nothing())) == "test"


@pytest.mark.parametrize("fields", [["id", "contents"], ["title", "text"], ["question", "contents"]], ids=" ".join)
def test_passages_in_parquet_are_known_by_their_columns(tmp_path: Path, fields: list[str]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    jsonl(tmp_path / "dev.jsonl", ROW)
    parquet.write_table(pyarrow.table({name: ["x"] for name in fields}), tmp_path / "wiki-18.parquet")
    assert QuestionFiles(tmp_path).splits == (("dev",) if "question" not in fields else ("dev", "wiki-18"))


def test_questions_for_evaluation_alone_are_not_trained_on(tmp_path: Path) -> None:
    environment = SearchQAEnvironment(data_dir=jsonl(tmp_path / "test.jsonl", ROW), search_engine=Nothing())
    assert environment.splits() == ("test",)
    assert default_split(environment) == "test"
    assert training_tasks(environment, needed=False) == ()
    with pytest.raises(
        UserError, match=r"must contain train\.jsonl or train\.parquet to train, but .* has test\.jsonl; "
    ):
        training_tasks(environment)
