"""Messages to token ids and back, with the policy's own chat format and sampler: what is served is what is rolled out.

A client sends a conversation as texts. The ids of a response that was sampled here are remembered, so that the next
request goes on behind the very tokens that were sampled, as an episode does (token in, token out). A response of
somebody else is encoded.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from sdar.environments.tools import as_text
from sdar.errors import UserError
from sdar.policy.call_form import DESCRIBED
from sdar.policy.chat import ChatFormat
from sdar.policy.generation import TurnGenerator
from sdar.policy.language_model import LanguageModel
from sdar.policy.sampling import TokenSampler
from sdar.randomness import keyed_generator
from sdar.rollout.conversation import AppendConversation, Prompt
from sdar.rollout.settings import SamplingConfig
from sdar.serving.errors import ApiError, too_long
from sdar.serving.kept import KeptConversations
from sdar.serving.messages import Said
from sdar.serving.request import ChatRequest
from sdar.serving.settings import ServeSettings

REMEMBERED = 4096
"""Responses whose ids are remembered, the newest."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass
class Answer:
    """A response that is being sampled. Iterating gives its text piece by piece, a token at a time.

    Where the request has tools, there is one piece at the end: what looks like a text may become a call.

    ``text``           what has been sampled so far, without the end token
    ``said``           what is answered: the text, without calls where these could be read. Whole with ``finish_reason``
    ``ids``            the sampled ids, and ``prompt_tokens`` the number of those before them
    ``finish_reason``  stop: an end token was sampled; length: there was no room for more; None: it goes on
    """

    prompt_tokens: int
    pieces: Iterator[str] = field(default_factory=lambda: iter(()), repr=False)
    text: str = ""
    said: Said = field(default_factory=lambda: Said(""))
    ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None

    def __iter__(self) -> Iterator[str]:
        """Pieces of what is answered; some are empty, such as that of half a character."""
        return self.pieces


class ChatModel:
    """Answers conversations with a policy, one at a time: calls must not overlap.

    ``defaults``    how responses are sampled where a request does not say so
    ``kept_bytes``  most bytes of keys and values that are kept for the next requests
    """

    def __init__(
        self,
        policy: LanguageModel,
        defaults: SamplingConfig,
        *,
        remembered: int = REMEMBERED,
        kept_bytes: int = 1_000_000 * ServeSettings.kept_cache_mb,
    ) -> None:
        self.policy = policy
        self.defaults = defaults
        self._said: OrderedDict[bytes, list[int]] = OrderedDict()
        self._remembered = remembered
        self._kept = KeptConversations(self._generator, kept_bytes)

    def answer(self, request: ChatRequest) -> Answer:
        """Prepare the response to a conversation. ApiError 400: it cannot be rendered, or does not fit."""
        try:
            prompt = self.prompt(request)
        except UserError as error:
            raise ApiError(400, str(error), param="messages") from error
        room = self.policy.context_tokens - len(prompt.ids)
        sampling = request.sampling
        if not request.asked_limit:
            sampling = replace(sampling, max_response_tokens=max(1, min(sampling.max_response_tokens, room)))
        if sampling.max_response_tokens > room:
            raise too_long(self.policy.context_tokens, len(prompt.ids), sampling.max_response_tokens)
        answer = Answer(prompt_tokens=len(prompt.ids))
        answer.pieces = self._sample(answer, prompt, sampling, request)
        return answer

    def prompt(self, request: ChatRequest) -> Prompt:
        """A conversation up to where the response begins.

        UserError where the chat template cannot go on behind a response.
        """
        preface = as_text(request.preface)
        texts = [preface, *(told.text for told in request.told), *map(Said.written, request.said)]
        if (characters := sum(map(len, texts))) > self.policy.most_characters:
            least = characters // self.policy.longest_token
            raise too_long(self.policy.context_tokens, least, request.sampling.max_response_tokens)
        least = len(self.policy.chat.encoder.encode("", preface, ""))
        if least >= self.policy.context_tokens:
            raise too_long(self.policy.context_tokens, least, request.sampling.max_response_tokens)
        chat = self.policy.chat.prefaced(request.preface)
        if request.said:
            chat.check_append()
        conversation = AppendConversation(chat)
        prompt = conversation.prompt(request.told[0].text)
        ids, after = list(prompt.ids), chat.first.after
        for said, told in zip(request.said, request.told[1:], strict=True):
            response = self._said.get(_key(ids, said))
            if response is None:
                response = _encoded(chat, after, said, prompt.thought)
            conversation.record(prompt, response)
            prompt = conversation.prompt(told.text, told.results)
            ids += [*response, *prompt.ids]
            if len(ids) >= self.policy.context_tokens:
                raise too_long(self.policy.context_tokens, len(ids), request.sampling.max_response_tokens)
            after = (chat.results if told.results and chat.results else chat.later).after
        return replace(prompt, ids=ids)

    def _sample(self, answer: Answer, prompt: Prompt, sampling: SamplingConfig, request: ChatRequest) -> Iterator[str]:
        """One token a step: each is computed from the kept keys and values, as in a rollout."""
        limit, chat = sampling.max_response_tokens, self.policy.chat.prefaced(request.preface)
        number = secrets.randbits(63) if request.seed is None else request.seed
        uniforms = keyed_generator(number, "served").random(limit)
        generator, fed = self._kept.take(prompt.ids)
        generator.sampler = TokenSampler(sampling.temperature, sampling.top_p, sampling.top_k)
        shown = ""
        while answer.finish_reason is None:
            place = len(answer.ids)
            answer.ids += self._next(generator, fed, uniforms[place : place + 1])
            fed = []
            decoded = chat.decode(answer.ids)
            answer.text = prompt.thought + decoded
            ended, cut = answer.ids[-1] in chat.end_ids, len(answer.ids) == limit
            if ended or cut:
                read = AppendConversation(chat).said(prompt, decoded)
                answer.said = (request.may_call and Said.calling(read, request.preface.tools)) or Said(answer.text)
                self._remember(prompt.ids, answer)
                self._kept.give([*prompt.ids, *answer.ids], generator)
                answer.finish_reason = "length" if not ended else "tool_calls" if answer.said.calls else "stop"
            elif request.may_call or answer.text.endswith(_INCOMPLETE) or self._is_byte(answer.ids[-1]):
                yield ""  # the next token may complete the character, or a call
                continue
            text = answer.said.text if answer.finish_reason else answer.text
            piece = text[len(shown) :] if text.startswith(shown) else ""
            shown += piece
            yield piece

    def _next(self, generator: TurnGenerator, fed: list[int], uniforms: NDArray[np.float64]) -> list[int]:
        """The next token; other conversations give way where memory is short."""
        try:
            return generator.respond({0: fed}, {0: uniforms})[0]
        except (UserError, torch.OutOfMemoryError):
            self._kept.clear()
        try:
            return generator.respond({0: fed}, {0: uniforms})[0]
        except (UserError, torch.OutOfMemoryError) as error:
            told = "there is not enough memory for this conversation; shorten the messages, or lower max_tokens"
            raise ApiError(500, told, code="out_of_memory") from error

    def _is_byte(self, token: int) -> bool:
        """Whether it is a single byte of SentencePiece's, which is decoded together with those beside it."""
        return _BYTE.fullmatch(str(self.policy.tokenizer.convert_ids_to_tokens(token))) is not None

    def _generator(self) -> TurnGenerator:
        """For one conversation, a token per response."""
        return TurnGenerator(
            self.policy.model,
            pad_id=self.policy.pad_id,
            end_ids=self.policy.chat.end_ids,
            windows=self.policy.windows,
            max_response_tokens=1,
            step="plain",
        )

    def _remember(self, ids: Sequence[int], answer: Answer) -> None:
        self._said[_key(ids, answer.said)] = list(answer.ids)
        while len(self._said) > self._remembered:
            self._said.popitem(last=False)


def _encoded(chat: ChatFormat, after: str, said: Said, thought: str) -> list[int]:
    """Ids of what somebody else said behind the template's text ``after``."""
    text = said.text.removeprefix(thought)
    pieces: tuple[str, ...] = ("", text, "")
    if said.calls:
        opened, *calls = (chat.calls or DESCRIBED).pieces(said.calls)
        pieces = ("", text, f"\n{opened}" if text else opened, *calls)
    return chat.encoder.continued((after,), *pieces) if "".join(pieces) else []


def _key(ids: Sequence[int], said: Said) -> bytes:
    """A conversation up to a response, and the response."""
    digest = hashlib.blake2b(array("q", ids).tobytes(), digest_size=16)
    digest.update(said.written().encode("utf-8", "surrogatepass"))
    return digest.digest()
