"""The dense retriever, with a toy encoder: exact nearest neighbors, vectors computed once."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from sdar.environments.search_qa.dense import DenseRetriever, HfEncoder
from sdar.environments.search_qa.retriever import Passage
from sdar.errors import UserError
from toys.models import toy_tokenizer

pytest.importorskip("faiss")

TEXTS = ["stone tower", "old river", "river song", "a quiet mill"]
PASSAGES = [Passage(str(n), f'"T"\n{text}') for n, text in enumerate(TEXTS)]


class Letters:
    """Counts letters; its vectors have length 1."""

    identity = "letters"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.count(chr(97 + n)) for n in range(26)] for text in texts], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True).clip(1e-9)


def test_the_nearest_passages_are_found_in_order() -> None:
    retriever = DenseRetriever(PASSAGES, Letters(), query_prefix="", passage_prefix="")
    vectors = Letters().encode([passage.contents for passage in PASSAGES])
    for query in ("river", "mill", "stone"):
        (hits,) = retriever.search([query], 3)
        scores = vectors @ Letters().encode([query])[0]
        assert isinstance(hits, list)
        assert [int(hit.passage.id) for hit in hits] == np.argsort(-scores, kind="stable")[:3].tolist()
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:3], abs=1e-6)
    assert retriever.search([], 3) == []
    assert len(retriever.search(["river"], 100)[0]) == len(PASSAGES)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT on disk, for from_pretrained."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = toy_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_vectors_are_means_over_the_texts_own_tokens(encoder: Path) -> None:
    """Padding changes nothing: batched texts have the same vectors."""
    model = HfEncoder(str(encoder), batch_size=3)
    texts = ["a", "a much longer text", "b", "c"]
    together = model.encode(texts)
    alone = np.concatenate([model.encode([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)


def test_passages_are_encoded_once_for_each_corpus_and_encoder(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": p.id, "contents": p.contents}) + "\n" for p in PASSAGES))
    first = DenseRetriever.open(corpus, str(encoder), cache_dir=tmp_path)
    encoded: list[int] = []
    encode = HfEncoder.encode
    monkeypatch.setattr(HfEncoder, "encode", lambda self, texts: encoded.append(len(texts)) or encode(self, texts))
    again = DenseRetriever.open(corpus, str(encoder), cache_dir=tmp_path)
    assert encoded == []
    assert first.search(["river"], 2) == again.search(["river"], 2)
    DenseRetriever.open(corpus, str(encoder), cache_dir=tmp_path, passage_prefix="")
    assert encoded == [1, 1, len(PASSAGES)]
    assert len([path for path in (tmp_path / "dense").iterdir() if path.is_dir()]) == 2


def test_vectors_that_were_cut_short_are_computed_again_and_nothing_unfinished_stays(
    encoder: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": p.id, "contents": p.contents}) + "\n" for p in PASSAGES))
    first = DenseRetriever.open(corpus, str(encoder), cache_dir=tmp_path).search(["river"], 2)
    (tmp_path / "dense" / ".0123-a1b2c3d4").touch()  # of a process that was killed
    (kept,) = (path for path in (tmp_path / "dense").iterdir() if path.is_dir())
    (vectors,) = kept.glob("*.npy")
    vectors.write_bytes(vectors.read_bytes()[:-4])
    assert DenseRetriever.open(corpus, str(encoder), cache_dir=tmp_path).search(["river"], 2) == first
    assert [path for path in (tmp_path / "dense").iterdir() if path.suffix != ".lock"] == [kept]


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"sdar\[dense\]"):
        DenseRetriever(PASSAGES, Letters())


def test_an_encoder_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="encoder="):
        HfEncoder(str(tmp_path))
