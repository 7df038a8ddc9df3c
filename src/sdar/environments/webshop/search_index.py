"""The shop's search engine: BM25 over the products' texts, with the ranking of the original Lucene index.

bm25s computes the scores (k1 0.9, b 0.4, Lucene's variant). The text analysis follows Lucene: its tokenizer, 33 stop
words, Porter's stemmer. Ties go to the earlier document.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

import bm25s
import numpy as np
import Stemmer

from sdar.environments.lucene import STOP_WORDS, best
from sdar.errors import UserError
from sdar.files import MB, FileError, read_json

K1, B = 0.9, 0.4

_HAN = "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3041-\u309f"
_WORD = re.compile(
    rf"[{_HAN}]|[^\W{_HAN}]+(?:(?:(?<=[^\W\d_])[.:'’·](?=[^\W\d_{_HAN}])|(?<=\d)[.,;'’](?=\d))[^\W{_HAN}]+)*"
)
"""Word boundaries of Unicode annex 29, as far as product texts need them: "4.5" and "o'neil" are one word."""

_POSSESSIVE = ("'s", "’s", "'S", "’S")
_RECORD = "corpus.json"


class TextAnalyser:
    """Converts text to index terms."""

    def __init__(self) -> None:
        self._stemmer = Stemmer.Stemmer("porter")

    def terms(self, text: str) -> list[str]:
        """Stemmed lower-case words, without possessive endings and stop words."""
        words = (word[:-2] if word.endswith(_POSSESSIVE) else word for word in _WORD.findall(text))
        kept = [word for word in map(str.lower, words) if word and word not in STOP_WORDS]
        # Porter's rules apply from three letters on; the library would strip even a lone "s".
        stemmed: list[str] = self._stemmer.stemWords(kept)
        return [stem if len(word) > 2 else word for word, stem in zip(kept, stemmed, strict=True)]


class SearchIndex:
    """Finds documents by their terms. Documents are numbered in the given order."""

    def __init__(self, documents: Sequence[str], index_dir: Path | None = None) -> None:
        """Load the index of the documents from ``index_dir``, or build it and save it there.

        Raises:
            UserError: the folder has an index of other documents, or a damaged one.
        """
        self._analyser = TextAnalyser()
        self._bm25 = bm25s.BM25(k1=K1, b=B, method="lucene")
        corpus = {"documents": len(documents), "sha256": _hash(documents), "analysis": 1}
        record = None if index_dir is None else index_dir / _RECORD
        if index_dir is not None and record is not None and os.path.lexists(record):
            found = _read(record)
            if {name: found.get(name) for name in corpus} != corpus:
                raise UserError(
                    f"environment.index_dir={index_dir} has the index of another catalogue; set another folder, or "
                    "remove it"
                )
            self._bm25 = _load(index_dir, str(found.get("folder")))
            return
        terms = [self._analyser.terms(document) for document in documents]
        self._bm25.index([found or [""] for found in terms], show_progress=False)
        if index_dir is not None and record is not None:
            index_dir.mkdir(parents=True, exist_ok=True)
            # Processes number terms differently, so concurrent builds must not mix their files. The record is written
            # last and atomically, so that an incomplete index has none.
            folder = Path(mkdtemp(prefix="bm25-", dir=index_dir))
            self._bm25.save(str(folder))
            (folder / _RECORD).write_text(json.dumps(corpus | {"folder": folder.name}))
            (folder / _RECORD).replace(record)

    def search(self, query: str, limit: int) -> list[int]:
        """Numbers of the best documents with a term of the query, best first, ties in document order."""
        known = [term for term in self._analyser.terms(query) if term and term in self._bm25.vocab_dict]
        if not known:
            return []
        scores: np.ndarray = self._bm25.get_scores(known)
        return [int(number) for number in best(scores, limit)]


def _hash(documents: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _read(record: Path) -> dict[str, object]:
    try:
        found = read_json(record, MB)
    except FileError:
        return {}
    return found if isinstance(found, dict) else {}


def _load(index_dir: Path, folder: str) -> bm25s.BM25:
    try:
        return bm25s.BM25.load(str(index_dir / folder), mmap=True)
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(f"environment.index_dir={index_dir} has a damaged index ({error}); remove it") from error
