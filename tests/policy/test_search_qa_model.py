"""The shipped model of Search-QA reads and copies: that is what its warm start was for."""

from __future__ import annotations

from functools import lru_cache

from sdar.environments.search_qa import names
from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.panel import make_panel
from sdar.policy.language_model import LanguageModel, tiny_model
from sdar.rollout.collector import Collector
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.warm_start.domains import load_domain


@lru_cache
def shipped() -> LanguageModel:
    return tiny_model("search_qa")


def test_every_word_of_a_name_is_a_single_token() -> None:
    words = [word for pool in vars(names).values() if isinstance(pool, tuple) for word in pool]
    assert len(words) > 250
    assert [word for word in words if len(shipped().tokenizer.encode(f" {word}", add_special_tokens=False)) != 1] == []


def test_with_its_skills_it_answers_questions_about_a_world_it_never_read() -> None:
    domain = load_domain("search_qa")
    environment = domain.environment(max_turns=4)
    panel = make_panel(environment, domain.split, 32, 0)
    settings = RolloutSettings(max_concurrent_episodes=32, sampling=SamplingConfig(0.4, 1.0, 0, 48))
    collector = Collector(shipped(), environment, settings)
    plain = evaluate(collector, panel, seed=0)
    helped = evaluate(collector, panel, seed=0, name="val_with_skills", privileged=domain.teacher().privileged_text)
    assert 4 <= plain.successes <= 20
    assert helped.successes >= 20
    assert plain.errors == helped.errors == 0
