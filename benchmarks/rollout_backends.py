"""Rollouts by the policy's own loop and by vLLM, in turns: CPU seconds per sampled token, and how much they agree.

    python benchmarks/rollout_backends.py [--episodes 64] [--rounds 3] [--turns 14] [--hidden-size 512 --layers 14]

Needs vLLM. Without sizes the shipped tiny model plays ALFWorld; with them a Qwen3 with random weights and the tiny
model's vocabulary plays it, and says nothing sensible. The first round of each backend is left out: it starts engines
and fills caches. One thread with ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.policy.language_model import LanguageModel, tiny_model
from sdar.rollout.collector import Collector, EpisodeRequest
from sdar.rollout.sampling import generators
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.rollout.vllm.settings import VllmSettings

BACKENDS = ("own", "vllm")


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=14, help="most responses of an episode")
    add_sizes(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    policy = sized(tiny_model("alfworld"), options)
    count = sum(parameter.numel() for parameter in policy.model.parameters())
    print(f"{policy.name}, {count / 1e6:.2f} M parameters, {options.episodes} episodes of ALFWorld at a time")
    environment = AlfworldEnvironment(max_turns=options.turns)
    tasks = environment.tasks("train")
    collectors = {
        backend: Collector(policy, environment, settings, generator_factory=generators(settings))
        for backend in BACKENDS
        for settings in [how(backend, options.episodes)]
    }
    cost: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    for number in range(options.rounds + 1):
        chosen = range(number * options.episodes, (number + 1) * options.episodes)
        requests = [EpisodeRequest(tasks[place % len(tasks)], 0) for place in chosen]
        for backend in BACKENDS if number % 2 else reversed(BACKENDS):
            started = time.process_time()
            collected = collectors[backend].collect(requests, seed=1, key=("benchmark", number))
            seconds = time.process_time() - started
            tokens = sum(episode.num_response_tokens for episode in collected.episodes)
            if number:
                cost[backend].append(1e6 * seconds / tokens)
            print(f"round {number} {backend:5} {seconds:7.2f} CPU seconds, {tokens} tokens", flush=True)
    middle = {backend: statistics.median(values) for backend, values in cost.items()}
    for backend, value in middle.items():
        print(f"{backend:5} {value:8.1f} CPU microseconds per sampled token, environment included")
    print(f"vllm / own: {middle['vllm'] / middle['own']:.2f}")


def how(backend: Any, episodes: int) -> RolloutSettings:
    """The settings of a backend."""
    return RolloutSettings(
        max_concurrent_episodes=episodes,
        sampling=SamplingConfig(max_response_tokens=48),
        backend=backend,
        vllm=VllmSettings(max_mismatch=0.5),
    )


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """The options that :func:`sized` reads."""
    parser.add_argument("--hidden-size", type=int, help="of a model with random weights")
    parser.add_argument("--layers", type=int, default=8)


def sized(policy: LanguageModel, options: argparse.Namespace) -> LanguageModel:
    """The policy, or where a size was asked for one with random weights of that size."""
    if options.hidden_size is None:
        return policy
    return replace(policy, model=random_model(policy, options.hidden_size, options.layers), name="random weights")


def random_model(policy: LanguageModel, hidden_size: int, layers: int) -> Qwen3ForCausalLM:
    """A Qwen3 with heads of 64 numbers and the policy's vocabulary and context."""
    given = policy.model.config
    heads = hidden_size // 64
    config = Qwen3Config(
        vocab_size=given.vocab_size,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=64,
        max_position_embeddings=given.max_position_embeddings,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config).eval()


if __name__ == "__main__":
    main()
