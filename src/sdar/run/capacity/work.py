"""What an iteration feeds to a model, from mean lengths: tokens of every pass and steps of decoding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdar.rollout.settings import Context


@dataclass(frozen=True)
class Work:
    """Episodes and mean lengths of an iteration, of all processes together.

    ``episodes``            per iteration
    ``turns``               mean per episode
    ``longest_turns``       of the longest episode; turns are played in step, so an iteration waits for it
    ``opening_tokens``      of the first prompt
    ``observation_tokens``  of each later prompt: the new message with append, the whole prompt with window
    ``response_tokens``     mean per response
    ``longest_response``    of a turn's longest response; the others wait for it
    ``teacher_tokens``      of the privileged block; 0: no teacher is scored
    ``context``             append or window
    """

    episodes: int
    turns: float
    longest_turns: int
    opening_tokens: float
    observation_tokens: float
    response_tokens: float
    longest_response: int
    teacher_tokens: float = 0.0
    context: Context = "window"

    @property
    def responses(self) -> float:
        """Number of turns of all episodes."""
        return self.episodes * self.turns

    @property
    def rows(self) -> float:
        """Rows that are learned from: an episode each with append, a turn each with window."""
        return float(self.episodes) if self.context == "append" else self.responses

    @property
    def prompt_tokens(self) -> float:
        """Tokens of all prompts, which are computed once while an episode is played."""
        return self.episodes * (self.opening_tokens + (self.turns - 1) * self.observation_tokens)

    @property
    def sampled_tokens(self) -> float:
        """Tokens of all responses."""
        return self.responses * self.response_tokens

    @property
    def row_tokens(self) -> float:
        """Mean tokens of a row, without the teacher's block."""
        return (self.prompt_tokens + self.sampled_tokens) / self.rows

    @property
    def played_context(self) -> float:
        """Mean tokens before a sampled one: half of a row's growth with append, one prompt with window."""
        if self.context == "append":
            return self.opening_tokens + (self.row_tokens - self.opening_tokens) / 2
        return self.prompt_tokens / self.responses + self.response_tokens / 2

    @property
    def longest_context(self) -> float:
        """Tokens of the longest conversation, for which a cache must have room."""
        grown = self.longest_turns - 1 if self.context == "append" else 0
        prompt = max(self.opening_tokens, 0 if grown else self.observation_tokens)
        return prompt + grown * (self.observation_tokens + self.response_tokens) + self.longest_response

    def waves(self, concurrent: int, processes: int) -> int:
        """How often a process plays a batch of at most ``concurrent`` episodes."""
        return math.ceil(self.episodes / processes / concurrent)
