"""How fast BM25 answers, how fast its index opens, and, on real questions, how often an answer is in the top 3.

    python benchmarks/search_qa_retrieval.py [--data FOLDER]

Without data: generated paragraphs of 100 words, word frequencies as in prose (Zipf), queries of 9 words of a paragraph.
With it: FOLDER/corpus.jsonl.xz and FOLDER/<data set>.jsonl, rows with question and golden_answers. Times are CPU
seconds of one thread, so that other load counts little; the load time is wall-clock, the best of five.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from sdar.environments.search_qa.bm25 import Bm25Retriever
from sdar.environments.search_qa.retriever import Passage
from sdar.environments.search_qa.scoring import normalise
from sdar.randomness import keyed_generator

BARS = {"queries/s per core over 10,000 paragraphs": 1500, "seconds to open 21,643 passages": 0.2}
DATA_SETS = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
_PARAGRAPHS, _PASSAGES, _QUERIES = 10_000, 21_643, 2_000


def generated(count: int) -> tuple[list[str], list[str]]:
    """Paragraphs and queries."""
    rng = keyed_generator(0, "benchmark", "paragraphs")
    words = np.array([f"w{number}x" for number in range(60_000)])
    rank = np.arange(1, len(words) + 1)
    chosen = rng.choice(len(words), size=(count, 100), p=(1 / rank) / (1 / rank).sum())
    texts = [f'"Title {number}"\n' + " ".join(words[row]) for number, row in enumerate(chosen)]
    queries = [" ".join(words[rng.choice(chosen[rng.integers(count)], 9, replace=False)]) for _ in range(_QUERIES)]
    return texts, queries


def real(folder: Path) -> tuple[list[str], list[str]]:
    """Passages and questions."""
    with lzma.open(folder / "corpus.jsonl.xz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["contents"] for line in file]
    questions = [row["question"] for name in DATA_SETS for row in rows(folder, name)]
    return texts, (questions * 2)[:_QUERIES]


def rows(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def queries_per_second(texts: list[str], queries: list[str]) -> float:
    """The median of five passes over all queries, tokenizing included."""
    retriever = Bm25Retriever([Passage(str(n), text) for n, text in enumerate(texts)])
    retriever.search(queries[:50], 3)
    times = []
    for _ in range(5):
        began = time.process_time()
        retriever.search(queries, 3)
        times.append(time.process_time() - began)
    return len(queries) / float(np.median(times))


def seconds_to_open(texts: list[str]) -> tuple[float, float]:
    """Seconds to make the index of a corpus on disk (CPU), and to open it again (wall-clock, with the file's hash)."""
    folder = Path(tempfile.mkdtemp())
    try:
        corpus = folder / "corpus.jsonl"
        lines = (json.dumps({"id": str(n), "contents": text}) for n, text in enumerate(texts))
        corpus.write_text("\n".join(lines) + "\n")
        began = time.process_time()
        Bm25Retriever.open(corpus, cache_dir=folder)
        made = time.process_time() - began
        opened = []
        for _ in range(5):
            began = time.perf_counter()
            Bm25Retriever.open(corpus, cache_dir=folder)
            opened.append(time.perf_counter() - began)
        return made, min(opened)
    finally:
        shutil.rmtree(folder)


def answer_in_top_3(folder: Path, texts: list[str]) -> dict[str, tuple[int, int]]:
    """Per data set, how many questions (raw, as the query) have an answer in the first three passages, and of how many.

    Counted are questions whose answer is anywhere in the corpus, where the rows say so.
    """
    retriever = Bm25Retriever([Passage(str(n), text) for n, text in enumerate(texts)])
    found: dict[str, tuple[int, int]] = {}
    for name in DATA_SETS:
        asked = [row for row in rows(folder, name) if row.get("answer_in_corpus", True)]
        answers = retriever.search([str(row["question"]) for row in asked], 3)
        hits = 0
        for row, answer in zip(asked, answers, strict=True):
            golden = [normalise(text) for text in row["golden_answers"]]  # type: ignore[attr-defined]
            seen = [normalise(hit.passage.contents) for hit in answer]  # type: ignore[union-attr]
            hits += any(text and text in passage for text in golden for passage in seen)
        found[name] = (hits, len(asked))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of real questions and their corpus")
    folder = parser.parse_args().data
    texts, queries = generated(_PASSAGES) if folder is None else real(folder)
    made, opened = seconds_to_open(texts[:_PASSAGES])
    measured = [queries_per_second(texts[:_PARAGRAPHS], queries), opened]
    for (name, bar), value in zip(BARS.items(), measured, strict=True):
        print(f"{name}: {value:.4g} (bar {bar})")
    print(f"seconds to make that index: {made:.3g}")
    if folder is not None:
        for name, (hits, asked) in answer_in_top_3(folder, texts).items():
            print(f"answer in the top 3, {name}: {hits}/{asked} = {hits / asked:.3f}")


if __name__ == "__main__":
    main()
