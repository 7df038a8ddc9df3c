"""The shipped model of arithmetic calculates with its skills, and mostly guesses without them."""

from __future__ import annotations

from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.panel import make_panel
from sdar.policy.language_model import tiny_model
from sdar.rollout.collector import Collector
from sdar.rollout.settings import RolloutSettings, SamplingConfig
from sdar.warm_start.domains import load_domain


def test_a_digit_is_a_token() -> None:
    tokenizer = tiny_model("arithmetic").tokenizer
    assert len(tokenizer.encode("1234567890", add_special_tokens=False)) == 10


def test_with_its_skills_it_calculates() -> None:
    domain = load_domain("arithmetic")
    environment = domain.environment(max_turns=1)
    panel = make_panel(environment, domain.split, 60, 0)
    settings = RolloutSettings(max_concurrent_episodes=60, sampling=SamplingConfig(0.4, 1.0, 0, 48))
    collector = Collector(tiny_model("arithmetic"), environment, settings)
    plain = evaluate(collector, panel, seed=0)
    helped = evaluate(collector, panel, seed=0, name="val_with_skills", privileged=domain.teacher().privileged_text)
    assert 4 <= plain.successes <= 20
    assert helped.successes >= 38
    assert plain.errors == helped.errors == 0
