"""Ids of texts in which the tokens of the chat template count, and a message's text stays text.

A tokenizer matches its added tokens anywhere, whether they are flagged special or not. So an observation that contains
``<|im_end|>``, ``<think>`` or a role marker would forge what only the template, or the model itself, may write.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Generic, TypeVar

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

Pieces = tuple[str, ...]
"""Texts of the template (at the even places, the first and the last one included) and of messages (at the odd ones)."""

_REMEMBERED = 4_000_000
"""Characters of the texts about which something is remembered."""
_FINDING = 1000

T = TypeVar("T")


class TextMemory(Generic[T]):
    """What was found out about texts, within a number of characters; beyond it everything is forgotten.

    Each finding counts as ``_FINDING`` characters, whatever its texts are.
    """

    def __init__(self, characters: int = _REMEMBERED) -> None:
        self._characters = characters
        self._found: dict[tuple[str, ...], T] = {}
        self._size = 0

    def get(self, texts: tuple[str, ...], find: Callable[[], T]) -> T:
        """What is known about ``texts``, or is found now."""
        if texts not in self._found:
            found = find()
            size = _FINDING + sum(map(len, texts))
            if self._size + size > self._characters:
                self._found, self._size = {}, 0
            self._found[texts] = found
            self._size += size
        return self._found[texts]


class TextEncoder:
    """Encodes a message's text in the context of the template's own text around it.

    A text without control tokens gets the ids that the tokenizer gives to the whole, so tokens that span the border
    between template and text, and the space that SentencePiece puts before the first word, are the template's own. In
    a text that contains a control token, its characters are encoded as any others.

    ``control_ids``  tokens that no text can produce: all added ones, whatever their flag, but for runs of whitespace
                     and the token of unknown characters
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = {int(index): token for index, token in tokenizer.added_tokens_decoder.items()}
        added = {index: token for index, token in added.items() if token.content.strip()}
        self._added = {token.content: token for token in added.values()}
        self._id_of = {token.content: index for index, token in added.items()}
        named = {name: str(text) for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str)}
        unknown = named.pop("unk_token", None)
        spared = {tokenizer.unk_token_id} if unknown is not None and unknown not in named.values() else set()
        self.control_ids = frozenset((set(added) | set(tokenizer.all_special_ids)) - spared)
        self._expected: TextMemory[list[int]] = TextMemory()
        self._borders: TextMemory[int] = TextMemory()

    def encode(self, *pieces: str) -> list[int]:
        """Ids of the texts together, see :data:`Pieces`. Tokens that are no control tokens may span their borders."""
        ids = self._ids("".join(pieces))
        if not any(pieces[1::2]) or not self._forges(ids, pieces):
            return ids
        return self._encode_pieces(pieces)

    def continued(self, context: Pieces, *pieces: str) -> list[int]:
        """Ids of the texts together that go behind the first :meth:`border` ids of ``context``."""
        whole, border = self.encode(*context[:-1], context[-1] + pieces[0], *pieces[1:]), self.border(context)
        if whole[:border] == self.encode(*context)[:border]:
            return whole[border:]
        return self.encode(*pieces)

    def border(self, context: Pieces) -> int:
        """Number of ids of a conversation's beginning that stay when a word follows.

        That is all of them, but for a space at the end that SentencePiece makes a part of the word.
        """
        return self._borders.get(context, lambda: self._border(context))

    def _border(self, context: Pieces) -> int:
        alone = self.encode(*context)
        shared = _shared(alone, self.encode(*context[:-1], context[-1] + "x"))
        return shared if not str(self.tokenizer.decode(alone[shared:])).strip() else len(alone)

    def splice_index(self, context: Pieces, ids: Sequence[int]) -> int:
        """Where in the ids of a text that begins with ``context`` something can be inserted behind it."""
        return min(self.border(context), _shared(self.encode(*context), ids))

    def controls(self, text: str) -> list[int]:
        """The control tokens of a text of the template, in order."""
        return [token for token in self._ids(text) if token in self.control_ids]

    def _ids(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer.encode(text, add_special_tokens=False)] if text else []

    def _forges(self, ids: Sequence[int], pieces: Pieces) -> bool:
        harmless = tuple("x" if place % 2 and piece else piece for place, piece in enumerate(pieces))
        expected = self._expected.get(harmless, lambda: self.controls("".join(harmless)))
        found = [token for token in ids if token in self.control_ids]
        return found != expected or any(map(self.matches, pieces[1::2]))

    @property
    def contents(self) -> list[str]:
        """The texts of the added tokens that are no whitespace."""
        return list(self._added)

    def matches(self, text: str) -> bool:
        """Whether a text contains that of an added token."""
        return self._pattern is not None and self._pattern.search(text) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        contents = sorted(self._added, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, contents))) if contents else None

    def _encode_pieces(self, pieces: Pieces) -> list[int]:
        """The control tokens of the template one by one, and the texts between them without any."""
        parts = self._cut(pieces[0])
        for text, template in zip(pieces[1::2], pieces[2::2], strict=True):
            beside, *further = self._cut(template)
            parts[-1:] = [parts[-1] + text + beside, *further]
        tokens = [None, *(self._added[part] for part in parts[1::2]), None]
        ids: list[int] = []
        for number, piece in enumerate(parts[::2]):
            last, following = tokens[number : number + 2]
            plain = piece.lstrip() if last is not None and last.rstrip else piece
            plain = plain.rstrip() if following is not None and following.lstrip else plain
            ids += self._plain(plain, first=last is None)
            ids += [] if following is None else [self._id_of[following.content]]
        return ids

    def _cut(self, text: str) -> list[str]:
        """A text of the template, cut before and after each added token: those are at the odd places."""
        return [text] if self._pattern is None else re.split(f"({self._pattern.pattern})", text)

    def _plain(self, text: str, *, first: bool) -> list[int]:
        """Ids of a text without control tokens, behind such a token unless it is the ``first``."""
        ids = self._without_added(text, first) if text else []
        if self.control_ids.isdisjoint(ids):
            return ids
        # The model's own vocabulary has the token as a word: one character at a time cannot spell it.
        alone = [token for letter in text for token in self._without_added(letter, False)]
        return [token for token in alone if token not in self.control_ids]

    def _without_added(self, text: str, first: bool) -> list[int]:
        if self._blind is None:
            return [int(t) for t in self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)]
        backend, anchor, ignored = self._blind
        encoded = backend.encode(text if first else anchor + text, add_special_tokens=False).ids
        return [token for token in encoded if token != ignored]

    @cached_property
    def _blind(self) -> tuple[Tokenizer, str, int] | None:
        """A copy of the tokenizer that matches no added token but one: its text and its id. None: it is not a fast one.

        What follows that token is not the beginning of the text, which SentencePiece marks.
        """
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            return None
        copy = json.loads(backend.to_str())
        for token in copy["added_tokens"]:
            token["special"] = token["special"] or bool(token["content"].strip())
        anchor = f"\ue000{secrets.token_hex(8)}\ue001"
        number = backend.get_vocab_size(with_added_tokens=True)
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        copy["added_tokens"].append({"id": number, "content": anchor, **flags})
        blind = Tokenizer.from_str(json.dumps(copy))
        blind.encode_special_tokens = True
        ignored = blind.token_to_id(anchor)
        assert ignored is not None
        return blind, anchor, ignored


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), min(len(one), len(other))
    )
