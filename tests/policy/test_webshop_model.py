"""The shipped model of WebShop copies codes and reads skills: that is what its warm start was for."""

from __future__ import annotations

from functools import lru_cache

from sdar.environments.webshop.catalogue import CatalogueSettings, generate_products
from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.panel import make_panel
from sdar.policy.language_model import LanguageModel, tiny_model
from sdar.rollout.collector import Collector
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.warm_start.domains import load_domain


@lru_cache
def shipped() -> LanguageModel:
    return tiny_model("webshop")


def test_every_code_of_the_built_in_catalogue_is_a_single_token() -> None:
    codes = [product.asin for product in generate_products(CatalogueSettings())]
    assert len(codes) == 480
    assert [code for code in codes if len(shipped().tokenizer.encode(code, add_special_tokens=False)) != 1] == []


def test_with_its_skills_it_buys_more_than_without() -> None:
    domain = load_domain("webshop")
    environment = domain.environment(domain.max_turns)
    panel = make_panel(environment, domain.split, 48, 0)
    settings = RolloutSettings(max_concurrent_episodes=48, sampling=SamplingConfig(0.4, 1.0, 0, 48))
    collector = Collector(shipped(), environment, settings)
    plain = evaluate(collector, panel, seed=0)
    helped = evaluate(collector, panel, seed=0, name="val_with_skills", privileged=domain.teacher().privileged_text)
    assert 4 <= plain.successes <= helped.successes - 6
    assert plain.errors == helped.errors == 0
