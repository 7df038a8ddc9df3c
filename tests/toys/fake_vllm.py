"""A module that stands in for vLLM where it is not installed: its interface, played by transformers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM


class SamplingParams(SimpleNamespace):
    """Keeps what it is given."""

    def __init__(self, *, temperature: float = 1.0, seed: int = 0, **others: Any) -> None:
        defaults = {"stop_token_ids": [], "prompt_logprobs": None, "max_tokens": 16}
        super().__init__(temperature=temperature, seed=seed, **(defaults | others))


class LLM:
    """Random weights until others are handed over.

    ``noise``    standard deviation of what is added to its logits
    ``stale``    whether weights are taken once only
    ``made``     all engines, in order
    """

    noise: ClassVar[float] = 0.0
    stale: ClassVar[bool] = False
    made: ClassVar[list[LLM]] = []

    def __init__(self, model: str, **settings: Any) -> None:
        torch.manual_seed(settings["seed"])  # as vLLM does
        int(os.environ["VLLM_CPU_KVCACHE_SPACE"])  # it takes nothing else
        self.settings = settings
        self.found = dict(os.environ)
        self.model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model)).eval()
        self.asked: list[list[int]] = []
        self.pushes = 0
        self.made.append(self)

    def collective_rpc(self, method: str, kwargs: Mapping[str, Any]) -> list[None]:
        assert method == "reload_weights"
        weights: Iterable[tuple[str, torch.Tensor]] = kwargs["weights_iterator"]
        if not (self.stale and self.pushes):
            self.model.load_state_dict({name: value.clone() for name, value in weights})
        self.pushes += 1
        return [None]

    def reset_prefix_cache(self) -> bool:
        return True

    def generate(self, prompts: Sequence[Mapping[str, Any]], parameters: Sequence[Any], *, use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        pairs = zip(prompts, parameters, strict=True)
        return [self._one(prompt["prompt_token_ids"], wanted) for prompt, wanted in pairs]

    @torch.no_grad()
    def _one(self, prompt: list[int], wanted: Any) -> Any:
        generator = torch.Generator().manual_seed(wanted.seed)
        ids, log_probs = list(prompt), []
        given = None
        if wanted.prompt_logprobs is not None:
            rows = self._log_probs(ids, 1.0, None)
            given = [None, *({t: _entry(row[t])} for t, row in zip(ids[1:], rows, strict=False))]
        else:
            self.asked.append(list(prompt))
        for _ in range(wanted.max_tokens):
            row = self._log_probs(ids, wanted.temperature, generator)[-1]
            token = int(torch.multinomial(row.exp(), 1, generator=generator))
            ids.append(token)
            log_probs.append({token: _entry(row[token])})
            if token in wanted.stop_token_ids:
                break
        completion = SimpleNamespace(token_ids=tuple(ids[len(prompt) :]), logprobs=log_probs)
        return SimpleNamespace(outputs=[completion], prompt_logprobs=given)

    def _log_probs(self, ids: list[int], temperature: float, generator: torch.Generator | None) -> torch.Tensor:
        logits = self.model(torch.tensor([ids])).logits[0].float()
        if generator is not None and self.noise:
            logits = logits + self.noise * torch.randn(logits.shape, generator=generator)
        return (logits / temperature).log_softmax(-1)


def _entry(value: torch.Tensor) -> Any:
    return SimpleNamespace(logprob=float(value))


def install(monkeypatch: pytest.MonkeyPatch, *, noise: float = 0.0, stale: bool = False) -> type[LLM]:
    """Let ``import vllm`` find this; returns the class that it has."""
    engine = type("LLM", (LLM,), {"noise": noise, "stale": stale, "made": []})
    module: Any = ModuleType("vllm")
    module.__spec__ = ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = engine, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return engine
