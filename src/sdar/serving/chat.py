"""Messages to token ids and back, with the policy's own chat format and sampler: what is served is what is rolled out.

A client sends a conversation as texts. The ids of a response that was sampled here are remembered, so that the next
request goes on behind the very tokens that were sampled, as an episode does (token in, token out). A response of
somebody else is encoded.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

from sdar.errors import UserError
from sdar.policy.generation import TurnGenerator
from sdar.policy.language_model import LanguageModel
from sdar.randomness import keyed_generator
from sdar.rollout.conversation import AppendConversation
from sdar.rollout.settings import SamplingConfig
from sdar.serving.errors import ApiError, too_long
from sdar.serving.request import ChatRequest

REMEMBERED = 4096
"""Responses whose ids are remembered, the newest."""
_LEAST_TOKEN_CHARACTERS = 16
"""Of the longest token that is reckoned with: what a vocabulary does not know may be a token of any length."""
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


@dataclass
class Answer:
    """A response that is being sampled. Iterating gives its text piece by piece, a token at a time.

    ``text``           what has been sampled so far, without the end token
    ``ids``            the sampled ids, and ``prompt_tokens`` the number of those before them
    ``finish_reason``  stop: an end token was sampled; length: there was no room for more; None: it goes on
    """

    prompt_tokens: int
    pieces: Iterator[str] = field(default_factory=lambda: iter(()), repr=False)
    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None

    def __iter__(self) -> Iterator[str]:
        """Pieces of ``text``; some are empty, such as that of half a character."""
        return self.pieces


class ChatModel:
    """Answers conversations with a policy, one at a time: calls must not overlap.

    ``defaults``  how responses are sampled where a request does not say so
    """

    def __init__(self, policy: LanguageModel, defaults: SamplingConfig, *, remembered: int = REMEMBERED) -> None:
        self.policy = policy
        self.defaults = defaults
        self._said: OrderedDict[bytes, list[int]] = OrderedDict()
        self._remembered = remembered
        longest = max(map(len, policy.tokenizer.get_vocab()))
        self._most_characters = policy.context_tokens * max(longest, _LEAST_TOKEN_CHARACTERS)

    def answer(self, request: ChatRequest) -> Answer:
        """Prepare the response to a conversation. ApiError 400: it cannot be rendered, or does not fit."""
        try:
            ids, thought = self.ids(request)
        except UserError as error:
            raise ApiError(400, str(error), param="messages") from error
        room = self.policy.context_tokens - len(ids)
        sampling = request.sampling
        if not request.asked_limit:
            sampling = replace(sampling, max_response_tokens=max(1, min(sampling.max_response_tokens, room)))
        if sampling.max_response_tokens > room:
            raise too_long(self.policy.context_tokens, len(ids), sampling.max_response_tokens)
        answer = Answer(prompt_tokens=len(ids))
        answer.pieces = self._sample(answer, ids, thought, sampling, request.seed)
        return answer

    def ids(self, request: ChatRequest) -> tuple[list[int], str]:
        """Ids of a conversation up to where the response begins, and the opening tag of a thought it begins in, if any.

        UserError where the chat template cannot go on behind a response, or has no place for a system message.
        """
        texts = [request.system or "", *request.users, *request.answers]
        if (characters := sum(map(len, texts))) > self._most_characters:
            least = characters // max(1, self._most_characters // self.policy.context_tokens)
            raise too_long(self.policy.context_tokens, least, request.sampling.max_response_tokens)
        chat = self.policy.chat if request.system is None else self.policy.chat.at("system")
        if request.answers:
            chat.check_append()
        conversation = AppendConversation(chat, request.system)
        prompt = conversation.prompt(request.users[0])
        ids = list(prompt.ids)
        frame = chat.first
        for said, user in zip(request.answers, request.users[1:], strict=True):
            response = self._said.get(_key(ids, said))
            if response is None:
                text = said.removeprefix(prompt.thought)
                response = chat.encoder.continued((frame.after,), "", text, "") if text else []
            conversation.record(prompt, response)
            prompt = conversation.prompt(user)
            ids += [*response, *prompt.ids]
            frame = chat.later
        return ids, prompt.thought

    def _sample(
        self, answer: Answer, ids: list[int], thought: str, sampling: SamplingConfig, seed: int | None
    ) -> Iterator[str]:
        """One token a step: each is computed from the kept keys and values, as in a rollout."""
        limit, chat = sampling.max_response_tokens, self.policy.chat
        number = secrets.randbits(63) if seed is None else seed
        uniforms = keyed_generator(number, "served").random(limit)
        generator = TurnGenerator(
            self.policy.model,
            pad_id=self.policy.pad_id,
            end_ids=chat.end_ids,
            windows=self.policy.windows,
            **{**asdict(sampling), "max_response_tokens": 1},
        )
        generator.start(1)
        fed, shown = ids, ""
        while answer.finish_reason is None:
            place = len(answer.ids)
            answer.ids += generator.respond({0: fed}, {0: uniforms[place : place + 1]})[0]
            fed = []
            if answer.ids[-1] in chat.end_ids:
                answer.finish_reason = "stop"
            elif len(answer.ids) == limit:
                answer.finish_reason = "length"
            answer.text = thought + chat.decode(answer.ids)
            if answer.finish_reason is None and answer.text.endswith(_INCOMPLETE):
                yield ""  # the next token may complete the character
                continue
            piece = answer.text[len(shown) :] if answer.text.startswith(shown) else ""
            shown += piece
            if answer.finish_reason is not None:
                self._remember(ids, answer)
            yield piece

    def _remember(self, ids: Sequence[int], answer: Answer) -> None:
        self._said[_key(ids, answer.text)] = list(answer.ids)
        while len(self._said) > self._remembered:
            self._said.popitem(last=False)


def _key(ids: Sequence[int], text: str) -> bytes:
    """A conversation up to a response, and the response's text."""
    digest = hashlib.blake2b(array("q", ids).tobytes(), digest_size=16)
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.digest()
