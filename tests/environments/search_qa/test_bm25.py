"""BM25: the formula, the order of ties, and an index on disk that is tied to its content and written atomically."""

from __future__ import annotations

import json
import lzma
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.lucene import best
from sdar.environments.search_qa import bm25
from sdar.environments.search_qa.bm25 import Bm25Retriever, Tokenizer
from sdar.environments.search_qa.corpus import JsonlCorpus, line_offsets
from sdar.environments.search_qa.retriever import Hit, Passage
from sdar.errors import UserError

WORDS = ["stone", "river", "tower", "singing", "sang", "old"]
TEXTS = ["Singing stones.", "The river sings", "old Tower, old river", "a tower of stone stone", "nothing else here"]


def passages(texts: Sequence[str]) -> list[Passage]:
    return [Passage(str(number), f'"T"\n{text}') for number, text in enumerate(texts)]


def write(path: Path, texts: Sequence[str], last: str = "\n") -> Path:
    lines = [
        json.dumps({"id": str(n), "contents": f'"T{n}"\n{text}'}, ensure_ascii=False) for n, text in enumerate(texts)
    ]
    path.write_text("\n".join(lines) + last, encoding="utf-8")
    return path


def kept(folder: Path) -> list[Path]:
    """What a cache folder has beside the empty files of its locks."""
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def found(retriever: Bm25Retriever, query: str, top_k: int = 3) -> list[str]:
    (hits,) = retriever.search([query], top_k)
    assert isinstance(hits, list)
    return [hit.passage.id for hit in hits]


@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_scores_are_those_of_the_formula(documents: list[list[str]], data: st.DataObject) -> None:
    """Lucene's BM25, term by term, in Python."""
    query = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4))
    made = [Passage(str(n), " ".join(words)) for n, words in enumerate(documents)]
    (hits,) = Bm25Retriever(made).search([" ".join(query)], len(documents))
    stem = Tokenizer()
    terms = [stem(" ".join(words)) for words in documents]
    mean = sum(map(len, terms)) / len(terms)
    expected = {}
    for number, document in enumerate(terms):
        counts, score = Counter(document), 0.0
        for term in stem(" ".join(query)):
            containing = sum(term in other for other in terms)
            idf = math.log(1 + (len(terms) - containing + 0.5) / (containing + 0.5))
            score += idf * counts[term] / (counts[term] + 0.9 * (1 - 0.4 + 0.4 * len(document) / mean))
        if score > 0:
            expected[str(number)] = score
    assert isinstance(hits, list)
    assert {hit.passage.id: hit.score for hit in hits} == pytest.approx(expected, rel=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_words_are_stemmed_whatever_their_case_and_stop_words_do_not_count() -> None:
    retriever = Bm25Retriever(passages(TEXTS))
    assert found(retriever, "SINGS")[:2] == ["0", "1"]
    assert found(retriever, "the of a") == []
    assert found(retriever, "zeppelin") == []
    assert found(retriever, "") == []


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12), st.integers(1, 14))
def test_equal_scores_keep_the_order_of_the_corpus(values: list[float], top_k: int) -> None:
    scores = np.array(values, np.float32)
    expected = [n for n in sorted(range(len(values)), key=lambda n: -values[n]) if values[n] > 0][:top_k]
    assert best(scores, top_k).tolist() == expected


def test_many_queries_are_answered_as_each_alone() -> None:
    retriever = Bm25Retriever(passages(TEXTS))
    queries = ["old river", "", "stone", "old river"]
    assert retriever.search(queries, 2) == [retriever.search([query], 2)[0] for query in queries]


# On disk ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["\n", "", "\n\n\n", "\r\n \t\r\n"])
def test_a_corpus_on_disk_is_read_where_it_lies(tmp_path: Path, last: str) -> None:
    path = write(tmp_path / "c.jsonl", ["ein Fluß", "two\u2028lines", "three"], last)
    corpus = JsonlCorpus(path, line_offsets(path))
    assert len(corpus) == 3
    assert [passage.text for passage in corpus] == ["ein Fluß", "two\u2028lines", "three"]
    assert corpus[-1].title == "T2"
    assert [passage.id for passage in corpus[1:]] == ["1", "2"]


BLANKS = {
    "short": " " * 21,
    "as a passage": " " * 22,
    "tabs": "\t" * 5000 + "\r",
    "feeds": "\f\v " * 10,
    "long": " " * 16384,
}


@pytest.mark.parametrize("blank", BLANKS.values(), ids=BLANKS)
@pytest.mark.parametrize("block", [7, 4096, 1 << 22])
def test_blank_lines_of_any_length_are_skipped_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blank: str, block: int
) -> None:
    monkeypatch.setattr("sdar.environments.search_qa.corpus.BLOCK", block)
    path = tmp_path / "c.jsonl"
    lines = ['{"id": 1, "contents": "a"}', '  {"id": 2, "contents": "b"}', '{"id": 3, "contents": "c"}']
    for last in ("", "\n", f"\n{blank}"):
        path.write_text("\n".join([blank, "", *[f"{line}\n{blank}" for line in lines]]) + last, newline="")
        corpus = JsonlCorpus(path, line_offsets(path))
        assert [passage.id for passage in corpus] == ["1", "2", "3"]
        assert len(Bm25Retriever.open(path, cache_dir=tmp_path)) == 3
    path.write_text(f"{blank}\n{blank}")
    assert line_offsets(path).tolist() == [0]


def test_half_a_surrogate_pair_in_a_corpus_is_made_readable(tmp_path: Path) -> None:
    """JSON can encode one; no tokenizer accepts it."""
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": "1", "contents": "stone \\ud800 \\ud83d\\ude00"}\n')
    ((hit,),) = Bm25Retriever.open(path, cache_dir=tmp_path).search(["stone"], 1)  # type: ignore[misc]
    assert hit.passage.contents == "stone \ufffd \U0001f600"


def test_offsets_do_not_depend_on_how_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "c.jsonl", TEXTS)
    whole = line_offsets(path).tolist()
    monkeypatch.setattr("sdar.environments.search_qa.corpus.BLOCK", 7)
    assert line_offsets(path).tolist() == whole


def test_an_opened_index_answers_like_one_in_memory_and_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "c.jsonl", TEXTS)
    corpus = JsonlCorpus(path, line_offsets(path))
    first = Bm25Retriever.open(path, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(bm25, "build_index", lambda *_: pytest.fail("the index is made again"))
    again = Bm25Retriever.open(path, cache_dir=tmp_path / "cache")
    monkeypatch.undo()
    in_memory = Bm25Retriever(list(corpus))
    for query in ("old river", "stones", "sing"):
        assert first.search([query], 3) == again.search([query], 3) == in_memory.search([query], 3)


def test_the_index_belongs_to_the_content_and_not_to_the_name(tmp_path: Path) -> None:
    path, cache = tmp_path / "c.jsonl", tmp_path / "cache"
    assert found(Bm25Retriever.open(write(path, TEXTS), cache_dir=cache), "zeppelin") == []
    stat = path.stat()
    write(path, [*TEXTS[:-1], "zeppelin   here"])  # same size and same date
    os.utime(path, (stat.st_atime, stat.st_mtime))
    assert found(Bm25Retriever.open(path, cache_dir=cache), "zeppelin") == ["4"]
    assert found(Bm25Retriever.open(path, cache_dir=cache, k1=1.2), "zeppelin") == ["4"]
    assert len(kept(cache / "bm25")) == 3


def test_processes_that_start_together_share_one_whole_index(tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", TEXTS * 20)
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(lambda _: Bm25Retriever.open(path, cache_dir=tmp_path / "cache"), range(4)))
    assert len({tuple(found(retriever, "old tower")) for retriever in opened}) == 1
    assert len(kept(tmp_path / "cache" / "bm25")) == 1


def test_an_index_whose_making_was_cut_short_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = write(tmp_path / "c.jsonl", TEXTS), tmp_path / "cache"

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full_disk)
        with pytest.raises(UserError, match=r"cache_dir must be a writable directory.*no space"):
            Bm25Retriever.open(path, cache_dir=cache)
    assert kept(cache / "bm25") == []
    (folder,) = _index_folder(path, cache)
    for file in folder.iterdir():  # a folder with that name but without an index
        file.unlink()
    for name in (folder.name, "another"):  # of processes that were killed
        (folder.parent / f".{name}-a1b2c3d4").mkdir()
    assert found(Bm25Retriever.open(path, cache_dir=cache), "old tower")[0] == "2"
    assert kept(folder.parent) == [folder]


@pytest.mark.parametrize("damage", ["cut", "gone", "garbage"])
def test_an_index_that_lost_a_part_is_made_again(tmp_path: Path, damage: str) -> None:
    path, cache = write(tmp_path / "c.jsonl", TEXTS), tmp_path / "cache"
    (folder,) = _index_folder(path, cache)
    names = sorted(file.name for file in folder.iterdir())
    assert len(names) > 4
    for name in names:
        file = folder / name
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:-2])
        elif damage == "gone":
            file.unlink()
        else:
            file.write_bytes(b"[1]")
        assert found(Bm25Retriever.open(path, cache_dir=cache), "old tower")[0] == "2"
        assert sorted(file.name for file in folder.iterdir()) == names
    assert kept(folder.parent) == [folder]


def test_a_cache_that_cannot_be_written_is_told_and_a_finished_index_is_read_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "c.jsonl", TEXTS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cache_dir must be a writable directory.*file"):
        Bm25Retriever.open(path, cache_dir=tmp_path / "file")
    Bm25Retriever.open(path, cache_dir=tmp_path / "cache")
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: pytest.fail("it writes"))
    assert found(Bm25Retriever.open(path, cache_dir=tmp_path / "cache"), "old tower")[0] == "2"


@pytest.mark.parametrize("wrong", [{"k1": -1.0}, {"k1": math.nan}, {"b": 1.5}, {"b": math.nan}])
def test_parameters_out_of_range_are_told(tmp_path: Path, wrong: dict[str, float]) -> None:
    ((name, value),) = wrong.items()
    expected = {"k1": f"k1 must be a number >= 0, got {value}", "b": f"b must be a number >= 0 and <= 1, got {value}"}
    with pytest.raises(UserError, match=expected[name]):
        Bm25Retriever.open(write(tmp_path / "c.jsonl", TEXTS), cache_dir=tmp_path, **wrong)
    with pytest.raises(UserError, match=expected[name]):
        Bm25Retriever(passages(TEXTS), **wrong)


def _index_folder(path: Path, cache: Path) -> list[Path]:
    Bm25Retriever.open(path, cache_dir=cache)
    return kept(cache / "bm25")


@pytest.mark.parametrize(
    ("text", "mentioned"),
    [
        ('{"id": "1"}\n', "line 1 is not a passage"),
        ('{"id": "1", "contents": "x"}\nnot json\n', "line 2 is not a passage"),
        ('{"id": "1", "contents": 3}\n', "line 1 is not a passage"),
        ('\n\n{"id": "1", "contents": "x"}\n \r\n\n{}\n', "line 6 is not a passage"),
        ("[" * 100_000, "line 1 is not a passage"),
        ("[1]\n", "line 1 is not a passage"),
        ("", "must contain passages"),
        ('{"id": "1", "contents": "..."}\n', "must contain passages"),
    ],
)
def test_a_file_that_is_no_corpus_is_told_in_one_sentence(tmp_path: Path, text: str, mentioned: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=mentioned):
        Bm25Retriever.open(path, cache_dir=tmp_path / "cache")


def test_a_corpus_that_is_missing_or_compressed_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus=.*none\.jsonl cannot be read \(No such file"):
        Bm25Retriever.open(tmp_path / "none.jsonl")
    for name in ("c.jsonl.xz", "c.jsonl"):
        (tmp_path / name).write_bytes(lzma.compress(b"x"))
        with pytest.raises(UserError, match="must be a plain jsonl file, got xz data, which must be unpacked"):
            Bm25Retriever.open(tmp_path / name)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_corpus_that_is_no_file_is_refused_before_it_is_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "c.jsonl")
    with pytest.raises(UserError, match=r"corpus=.*c\.jsonl must be a regular file, got a .*; it must be a jsonl file"):
        Bm25Retriever.open(tmp_path / "c.jsonl")


def test_a_huge_file_of_nothing_is_no_corpus(tmp_path: Path) -> None:
    with (tmp_path / "c.jsonl").open("wb") as file:
        file.truncate(1 << 38)
    with pytest.raises(UserError, match="line 1 is not a passage"):
        Bm25Retriever.open(tmp_path / "c.jsonl")


def test_a_damaged_index_of_the_right_size_is_named(tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text(json.dumps({"id": "1", "contents": "a word"}))
    Bm25Retriever.open(corpus, cache_dir=tmp_path / "cache")
    for file in (tmp_path / "cache").rglob("vocab*.json"):
        file.write_bytes(b"[" * file.stat().st_size)
    with pytest.raises(UserError, match=r"cache_dir has a damaged index in .*; remove that folder"):
        Bm25Retriever.open(corpus, cache_dir=tmp_path / "cache")


def test_a_hit_is_a_passage_with_a_score() -> None:
    ((hit,),) = Bm25Retriever(passages(["only"])).search(["only"], 1)  # type: ignore[misc]
    assert isinstance(hit, Hit)
    assert (hit.passage.title, hit.passage.text) == ("T", "only")
