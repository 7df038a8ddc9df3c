"""The ranking, against Lucene 9.5's of the same documents and against plain sums; the index in memory and on disk."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.lucene import index, postings
from sdar.environments.lucene.analysis import EnglishAnalyzer
from sdar.environments.lucene.index import InvertedIndex
from sdar.environments.lucene.postings import Postings, PostingsWriter
from sdar.environments.lucene.similarity import kept_lengths
from sdar.environments.webshop.search_index import ranks

GOLDEN = json.loads((Path(__file__).parent / "golden" / "search.json").read_text(encoding="utf-8"))


def test_documents_are_ranked_as_lucene_ranks_them() -> None:
    """Its scores as Anserini returns them: to four digits, and less by 1e-6 for each further document of a score."""
    analyzer = EnglishAnalyzer()
    ids = [name for name, _ in GOLDEN["documents"]]
    found = InvertedIndex.of((analyzer.terms(text) for _, text in GOLDEN["documents"]), ranks(ids))
    for query, hits in GOLDEN["queries"]:
        numbers, scores = found.scored(analyzer.terms(query), 50)
        assert [ids[number] for number in numbers] == [name for name, _ in hits], query
        assert scores.tolist() == pytest.approx([score for _, score in hits], abs=2e-4)
    assert sum(len(hits) for _, hits in GOLDEN["queries"]) > 3000


def kept_length(length: int) -> int:
    """SmallFloat.byte4ToInt(SmallFloat.intToByte4(length)), bit by bit."""
    if length < 24:
        return length
    rest = length - 24
    bits = rest.bit_length()
    if bits < 4:
        return length
    shift = bits - 4
    encoded = (rest >> shift) & 7 | (shift + 1) << 3
    mantissa, exponent = encoded & 7, (encoded >> 3) - 1
    return 24 + (mantissa if exponent == -1 else (mantissa | 8) << exponent)


def test_lengths_are_what_one_byte_keeps_of_them() -> None:
    lengths = [*range(3000), 10**5, 10**6 + 1, 2**31 - 1]
    assert kept_lengths(np.array(lengths)).tolist() == [kept_length(length) for length in lengths]
    assert kept_lengths(np.array([39, 40, 41, 42, 56, 58, 60])).tolist() == [39, 40, 40, 42, 56, 56, 60]


WORDS = st.sampled_from([*"abcdefgh", "rare"])
DOCUMENTS = st.lists(st.lists(WORDS, max_size=12), min_size=1, max_size=30)


def plain(documents: list[list[str]], query: list[str]) -> dict[int, float]:
    """Scores of all documents with a term of the query, by the formula in 32-bit steps."""
    one, k1, b = np.float32(1), np.float32(0.9), np.float32(0.4)
    filled = [document for document in documents if document]
    if not filled:
        return {}
    average = np.float32(sum(map(len, filled)) / len(filled))
    scores: dict[int, float] = {}
    for term, count in Counter(query).items():
        having = sum(term in document for document in filled)
        own = np.float32(count) * np.float32(math.log(1 + (len(filled) - having + 0.5) / (having + 0.5)))
        for number, document in enumerate(documents):
            if term in document:
                kept = np.float32(kept_length(len(document)))
                inverse = one / (k1 * ((one - b) + b * kept / average))
                part = own - own / (one + np.float32(document.count(term)) * inverse)
                scores[number] = scores.get(number, 0.0) + float(part)
    return {number: float(np.float32(score)) for number, score in scores.items()}


@given(DOCUMENTS, st.lists(WORDS, max_size=8), st.integers(1, 5), st.booleans(), st.sampled_from([0, 10**6]))
def test_the_best_are_those_of_the_plain_sums(
    documents: list[list[str]], query: list[str], limit: int, by_rank: bool, few: int
) -> None:
    """However early the search stops to add up: it is made to stop as early as it can."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "_FEW", few)
        check_best(documents, query, limit, by_rank)


def check_best(documents: list[list[str]], query: list[str], limit: int, by_rank: bool) -> None:
    order = np.array([(7 * number) % 31 for number in range(len(documents))]) if by_rank else None
    found = InvertedIndex.of(documents, order)
    numbers, scores = found.scored(query, limit)
    expected = plain(documents, query)
    rank = list(range(len(documents))) if order is None else order.tolist()
    best = sorted(expected, key=lambda number: (-expected[number], rank[number]))[:limit]
    assert scores.tolist() == pytest.approx([expected[number] for number in best], rel=1e-6)
    assert all(expected[number] == pytest.approx(score) for number, score in zip(numbers.tolist(), scores, strict=True))
    again, _ = found.scored(query, limit)  # nothing is left of the first search
    assert again.tolist() == numbers.tolist()


@pytest.mark.parametrize("sparse", [0, 5, 10**9])
@pytest.mark.parametrize("ahead", [1, 4])
def test_no_choice_of_what_is_looked_up_changes_the_result(
    monkeypatch: pytest.MonkeyPatch, sparse: int, ahead: int
) -> None:
    monkeypatch.setattr(index, "_SPARSE", sparse)
    monkeypatch.setattr(index, "_AHEAD", ahead)
    monkeypatch.setattr(index, "_FEW", 0)
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 301)
    documents = [
        [f"w{word}" for word in rng.choice(300, rng.integers(1, 60), p=weights / weights.sum())] for _ in range(3000)
    ]
    found = InvertedIndex.of(documents)
    for _ in range(30):
        query = [f"w{word}" for word in rng.choice(300, 9, p=weights / weights.sum())]
        expected = plain(documents, query)
        best = sorted(expected, key=lambda number: (-expected[number], number))[:20]
        assert found.search(query, 20).tolist() == best


@given(DOCUMENTS, st.integers(1, 40))
def test_an_index_on_disk_is_the_one_in_memory(tmp_path_factory: pytest.TempPathFactory, documents, block) -> None:
    folder = tmp_path_factory.mktemp("index")
    in_memory, on_disk = PostingsWriter(), PostingsWriter(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postings, "_BLOCK", block)
        for document in documents:
            in_memory.add(document)
            on_disk.add(document)
        made, written = in_memory.finish(), on_disk.finish()
    read = Postings.load(folder)
    for found in (written, read):
        for name in ("starts", "documents", "saturations", "bounds"):
            assert np.array_equal(getattr(found, name), getattr(made, name))
        assert (found.size, found.filled) == (made.size, made.filled) == (len(documents), sum(map(bool, documents)))
        assert {term: found.terms.get(term) for term in made.terms} == made.terms
        assert found.terms.get("nowhere") is found.terms.get("") is None
    assert not list(folder.glob(".block*"))


def test_terms_of_any_text_are_found_on_disk(tmp_path: Path) -> None:
    documents = [["b", "é"], ["\ud800", "漢", "🍎"], [], ["zz", "z"]]
    writer = PostingsWriter(tmp_path)
    for document in documents:
        writer.add(document)
    found = InvertedIndex(writer.finish())
    for number, document in enumerate(documents):
        for term in document:
            assert found.search([term], 5).tolist() == [number]


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    for documents in ([], [[]]):
        assert InvertedIndex.of(documents).search(["a"], 5).tolist() == []
    assert InvertedIndex(PostingsWriter(tmp_path).finish()).search(["a"], 5).tolist() == []
