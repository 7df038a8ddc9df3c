"""Questions from files: jsonl, Search-R1's parquet rows, and all mistakes in either."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sdar.environments.search_qa.environment import SearchQAEnvironment
from sdar.environments.search_qa.questions import QuestionFiles
from sdar.environments.search_qa.retriever import Found, Retriever
from sdar.errors import UserError

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
    with pytest.raises(UserError, match="row 2 has the id 'nq_1' of an earlier row"):
        QuestionFiles(folder).questions("train")


def test_folders_without_training_questions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"environment\.data_dir must be a directory"):
        QuestionFiles(tmp_path / "none")
    with pytest.raises(UserError, match=r"must contain train\.jsonl or train\.parquet, but .* has test\.jsonl"):
        QuestionFiles(jsonl(tmp_path / "test.jsonl", ROW))
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
