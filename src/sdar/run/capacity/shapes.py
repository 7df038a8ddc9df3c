"""Shapes of published models, from their config.json, and the paper's iterations."""

from __future__ import annotations

from sdar.policy.shape import ModelShape
from sdar.run.capacity.work import Work

SHAPES = {
    "Qwen2.5-0.5B": ModelShape(896, 24, 14, 2, 64, 4864, 151936, qkv_bias=True),
    "Qwen2.5-1.5B": ModelShape(1536, 28, 12, 2, 128, 8960, 151936, qkv_bias=True),
    "Qwen3-1.7B": ModelShape(2048, 28, 16, 8, 128, 6144, 151936, qk_norm=True),
    "Qwen2.5-3B": ModelShape(2048, 36, 16, 2, 128, 11008, 151936, qkv_bias=True),
    "Qwen2.5-7B": ModelShape(3584, 28, 28, 4, 128, 18944, 152064, tied=False, qkv_bias=True),
    "Qwen2.5-32B": ModelShape(5120, 64, 40, 8, 128, 27648, 152064, tied=False, qkv_bias=True),
    "Llama-3.1-70B": ModelShape(8192, 80, 64, 8, 128, 28672, 128256, tied=False),
}
"""Name -> shape."""

PAPER_WINDOW = Work(
    episodes=128,
    turns=43,
    longest_turns=50,
    opening_tokens=480,
    observation_tokens=480,
    response_tokens=135,
    longest_response=512,
    teacher_tokens=943,
    context="window",
)
"""The first iteration of the paper's ALFWorld run as the original logs it: episodes of 43 turns, prompts of 480 tokens,
responses of 135, of which some reach the limit. The teacher's block is solved from its 44.6 s."""

PAPER_APPEND = Work(
    episodes=128,
    turns=43,
    longest_turns=50,
    opening_tokens=480,
    observation_tokens=314,
    response_tokens=135,
    longest_response=512,
    teacher_tokens=943,
    context="append",
)
"""The same episodes as growing conversations. A turn feeds 166 tokens less, as 50 turns of a random agent did
(docs/rollouts.md: 12,747 against 21,046 tokens an episode)."""

SHIPPED = ModelShape(128, 3, 4, 2, 32, 384, 953, qk_norm=True)
"""The shipped tiny model of ALFWorld."""

DEFAULT = Work(
    episodes=48,
    turns=12.94,
    longest_turns=14,
    opening_tokens=41,
    observation_tokens=9.75,
    response_tokens=12.73,
    longest_response=15,
    teacher_tokens=202,
    context="append",
)
"""The first iteration of the default run, seed 1."""
