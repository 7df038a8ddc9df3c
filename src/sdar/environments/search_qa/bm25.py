"""BM25 in this process, over passages in memory or over a corpus on disk with a cached index.

The ranking is Pyserini's default: Lucene's formula with k1 0.9 and b 0.4 over lower-cased, Porter-stemmed words without
Lucene's English stop words. Equal scores keep the order of the corpus. The index is that of bm25s, a sparse matrix of
term scores, so that a query is a sum of a few rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer

from sdar.config.fields import Fraction, NotNegative, checked
from sdar.environments.cached import is_whole, write_folder
from sdar.environments.lucene import STOP_WORDS, best
from sdar.environments.search_qa.corpus import JsonlCorpus, checked_path, content_hash, line_offsets
from sdar.environments.search_qa.retriever import Found, Hit, Passage, Retriever
from sdar.errors import UserError
from sdar.files import cache_root

_FORMAT = 1
"""Version of the cached indices. Increase it if tokens or files change."""

_WORD = re.compile(r"\w+")
_OFFSETS = "offsets.npy"


class Tokenizer:
    """Lower-cased, stemmed words without stop words. Stems are cached, since most words are frequent."""

    def __init__(self) -> None:
        stem = Stemmer.Stemmer("porter").stemWord
        self._stem = lru_cache(maxsize=1 << 18)(stem)

    def __call__(self, text: str) -> list[str]:
        """The terms of a text, in order."""
        return [self._stem(word) for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


class Bm25Retriever(Retriever):
    """BM25 over passages.

    Args:
        passages: the passages; after indexing, only those that are found are read again.
        index: a finished index of these passages; None: it is built here.
        k1, b: BM25's parameters.
    """

    @checked
    def __init__(
        self, passages: Sequence[Passage], index: bm25s.BM25 | None = None, *, k1: NotNegative = 0.9, b: Fraction = 0.4
    ) -> None:
        self._passages = passages
        self._tokens = Tokenizer()
        self._index = index if index is not None else build_index(passages, self._tokens, k1, b)

    @classmethod
    @checked
    def open(
        cls, corpus: str | Path, *, cache_dir: str | Path | None = None, k1: NotNegative = 0.9, b: Fraction = 0.4
    ) -> Bm25Retriever:
        """A retriever over a jsonl file. Its index is built once and then memory-mapped.

        The index is stored under the hash of the file's content, in ``cache_dir``, ``$SDAR_CACHE`` or the user's cache
        folder. It is there whole or not at all; of several processes one builds it, and the others wait.

        Raises:
            UserError: the file is missing, compressed or empty, a line is not a passage, k1 or b is out of range, or
                the index cannot be written.
        """
        path = checked_path(corpus)
        key = f"{content_hash(path)[:32]}-v{_FORMAT}-k1_{k1:g}-b_{b:g}"
        folder = cache_root(cache_dir) / "bm25" / key
        if not is_whole(folder):
            try:
                _write_index(path, folder, k1, b)
            except OSError as error:
                raise UserError(
                    f"environment.search_engine.cache_dir must be a writable directory with enough space, but "
                    f"{folder.parent} cannot be written ({error})"
                ) from error
        try:
            index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
            offsets = np.load(folder / _OFFSETS, mmap_mode="r")
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise UserError(
                f"environment.search_engine.cache_dir has a damaged index in {folder} ({error}); remove that folder"
            ) from error
        # Plain views of the mapped files: slicing np.memmap objects is slow.
        index.scores = {name: np.asarray(part) if name != "num_docs" else part for name, part in index.scores.items()}
        return cls(JsonlCorpus(path, offsets), index)

    def __len__(self) -> int:
        """Number of passages."""
        return len(self._passages)

    def search(self, queries: Sequence[str], top_k: int) -> list[Found]:
        """See :class:`Retriever`. Passages without a word of the query are not found."""
        return [self._search(query, top_k) for query in queries]

    def _search(self, query: str, top_k: int) -> Found:
        ids = self._index.get_tokens_ids(self._tokens(query))
        if not ids:
            return []
        scores = self._index.get_scores_from_ids(ids)
        return [Hit(self._passages[int(number)], float(scores[number])) for number in best(scores, top_k)]


def build_index(passages: Iterable[Passage], tokens: Tokenizer, k1: float, b: float) -> bm25s.BM25:
    """The index of passages, in their order.

    Raises:
        UserError: there is no passage, or none has a word.
    """
    words = [tokens(passage.contents) for passage in passages]
    if not any(words):
        raise UserError("environment.search_engine.corpus must contain passages, but it has none with a word")
    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    index.index(words, show_progress=False)
    return index


def _write_index(corpus: Path, folder: Path, k1: float, b: float) -> None:
    def fill(partial: Path) -> Mapping[str, Any]:
        offsets = line_offsets(corpus)
        index = build_index(JsonlCorpus(corpus, offsets), Tokenizer(), k1, b)
        index.save(partial, show_progress=False)
        np.save(partial / _OFFSETS, offsets)
        return {"corpus": corpus.name, "passages": len(offsets) - 1}

    write_folder(folder, fill)
