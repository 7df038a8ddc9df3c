"""A dense retriever in this process: an encoder embeds passages and queries, and search is by inner product.

Needs the extra ``sdar[dense]``. Encoders are Hugging Face models with mean pooling, such as E5; Search-R1 uses
``intfloat/e5-base-v2`` with the prefixes "query: " and "passage: ". This is the only module of the environments that
imports torch, and it does so on first use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sdar.config.fields import AtLeastOne, checked
from sdar.environments.cached import is_whole, write_folder
from sdar.environments.search_qa.corpus import JsonlCorpus, checked_path, content_hash, line_offsets
from sdar.environments.search_qa.retriever import Found, Hit, Passage, Retriever
from sdar.errors import UserError
from sdar.files import cache_root

_VECTORS = "vectors.npy"


class Encoder(Protocol):
    """Embeds texts. Encoders with the same ``identity``, which covers weights and settings, give the same vectors."""

    identity: str

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors [n, d], float32."""
        ...


class HfEncoder:
    """A Hugging Face encoder: the mean of its last hidden states over the text's tokens, scaled to length 1.

    Args:
        name: a model id, or a folder.
        max_tokens: longer texts are truncated.
        batch_size: texts per forward pass.
        device: where it runs.
    """

    @checked
    def __init__(
        self, name: str, *, max_tokens: AtLeastOne = 256, batch_size: AtLeastOne = 64, device: str = "cpu"
    ) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            loaded: Any = AutoModel.from_pretrained(name, dtype=torch.float32, trust_remote_code=False)
            self._model: Any = loaded.to(device).eval()
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"environment.search_engine.encoder={name} cannot be loaded: {reason}") from error
        self._max_tokens = max_tokens
        self._batch_size = batch_size
        self._torch = torch
        weights = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            weights.update(key.encode())
            weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        self.identity = f"{weights.hexdigest()[:32]}-{max_tokens}"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """See :class:`Encoder`."""
        parts = [self._encode(texts[i : i + self._batch_size]) for i in range(0, len(texts), self._batch_size)]
        return np.concatenate(parts) if parts else np.zeros((0, self._model.config.hidden_size), np.float32)

    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        torch = self._torch
        inputs = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._model.device)
        with torch.inference_mode():
            states = self._model(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        vectors: np.ndarray = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors


class DenseRetriever(Retriever):
    """The nearest passages by inner product, exactly (a flat faiss index).

    Args:
        passages: the passages to search.
        encoder: encoder of queries and passages.
        vectors: vectors of the passages [n, d], float32; None: they are computed here.
        query_prefix, passage_prefix: prefixes of the texts, as in the encoder's training.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        encoder: Encoder,
        vectors: np.ndarray | None = None,
        *,
        query_prefix: str = "query: ",
        passage_prefix: str = "passage: ",
    ) -> None:
        faiss = _faiss()
        if vectors is None:
            vectors = encoder.encode([passage_prefix + passage.contents for passage in passages])
        if len(vectors) != len(passages) or not len(passages):
            raise UserError(
                f"environment.search_engine.corpus must have one vector per passage, got {len(vectors)} vectors for "
                f"{len(passages)} passages"
            )
        self._passages = passages
        self._encoder = encoder
        self._prefix = query_prefix
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(np.ascontiguousarray(vectors, np.float32))

    @classmethod
    @checked
    def open(
        cls,
        corpus: str | Path,
        encoder: str,
        *,
        cache_dir: str | Path | None = None,
        query_prefix: str = "query: ",
        passage_prefix: str = "passage: ",
        max_tokens: AtLeastOne = 256,
        device: str = "cpu",
    ) -> DenseRetriever:
        """A retriever over a jsonl file. Its vectors are computed once and cached by content and encoder.

        Raises:
            UserError: the extra is missing, or the corpus or the encoder cannot be read.
        """
        _faiss()
        path = checked_path(corpus)
        model = HfEncoder(encoder, max_tokens=max_tokens, device=device)
        passages = JsonlCorpus(path, line_offsets(path))
        key = hashlib.sha256(json.dumps([content_hash(path), model.identity, passage_prefix]).encode()).hexdigest()
        folder = cache_root(cache_dir) / "dense" / key[:32]
        if not is_whole(folder):

            def fill(partial: Path) -> Mapping[str, Any]:
                np.save(partial / _VECTORS, model.encode([passage_prefix + passage.contents for passage in passages]))
                return {"corpus": path.name, "passages": len(passages)}

            try:
                write_folder(folder, fill)
            except OSError as error:
                raise UserError(
                    f"environment.search_engine.cache_dir must be a writable directory with enough space, but "
                    f"{folder.parent} cannot be written ({error})"
                ) from error
        try:
            vectors = np.load(folder / _VECTORS, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"environment.search_engine.cache_dir has damaged vectors in {folder} ({error}); remove that folder"
            ) from error
        return cls(passages, model, vectors, query_prefix=query_prefix, passage_prefix=passage_prefix)

    def search(self, queries: Sequence[str], top_k: int) -> list[Found]:
        """See :class:`Retriever`."""
        if not queries:
            return []
        vectors = self._encoder.encode([self._prefix + query for query in queries])
        scores, numbers = self._index.search(np.ascontiguousarray(vectors, np.float32), min(top_k, len(self._passages)))
        return [
            [Hit(self._passages[int(number)], float(score)) for number, score in zip(row, near, strict=True)]
            for row, near in zip(numbers, scores, strict=True)
        ]


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise UserError(
            "search_engine=dense needs the package faiss-cpu; install it with: pip install 'sdar[dense]'"
        ) from error
    return faiss
