from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from sdar.callbacks.curriculum import CurriculumMonitor
from sdar.objective.gate import GapGate
from toys.training import HintTeacher, toy_datamodule, toy_module, toy_policy, train

HEALTHY = {
    "curriculum/strongly_gated_fraction": 0.4,
    "curriculum/teacher_context_fraction": 0.2,
    "rollout/entropy": 1.0,
    "rollout/response_truncated_fraction": 0.0,
    "rollout/equal_group_fraction": 0.3,
    "rollout/end/error_environment": 0.0,
}


@pytest.mark.parametrize(
    ("tag", "value", "words"),
    [
        ("curriculum/strongly_gated_fraction", 0.0, "almost no token"),
        ("curriculum/strongly_gated_fraction", 1.0, "almost every token"),
        ("curriculum/teacher_context_fraction", 0.7, "privileged text"),
        ("rollout/entropy", 0.05, "entropy fell"),
        ("rollout/response_truncated_fraction", 0.5, "length limit"),
        ("rollout/equal_group_fraction", 1.0, "all returns are equal"),
        ("rollout/end/error_environment", 0.2, "ended by an error"),
        ("train/skipped_steps", 1, "1 optimizer steps were skipped"),
    ],
)
def test_an_alarm_sounds_once_when_its_condition_lasts(tag, value, words):
    monitor = CurriculumMonitor(patience=2)
    assert monitor.check(HEALTHY) == []
    ill = HEALTHY | {tag: value}
    assert monitor.check(ill) == []
    (message,) = monitor.check(ill)
    assert words in message
    assert monitor.check(ill) == []
    assert monitor.check(HEALTHY) == []
    monitor.check(ill)
    assert len(monitor.check(ill)) == 1


def test_a_healthy_run_and_a_run_without_teacher_are_silent():
    monitor = CurriculumMonitor(patience=1)
    assert monitor.check(HEALTHY) == []
    assert monitor.check({"rollout/entropy": 1.0}) == []
    assert monitor.check({}) == []


def test_a_gate_without_a_slope_is_not_pinned():
    """It is 0.5 everywhere by its setting, as in a method that uses the gap itself."""
    monitor, messages = CurriculumMonitor(patience=1), []
    policy = toy_policy()
    module = toy_module(policy, HintTeacher(), gate=GapGate(beta=0.0))
    train(module, toy_datamodule(policy), 1)
    assert module.report.metrics["curriculum/strongly_gated_fraction"] == 0
    messages = monitor_messages(monitor, module)
    assert not any("pinned" in message for message in messages)


def monitor_messages(monitor, module):
    """What the callback warns of after the module's last iteration."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    log = logging.getLogger("sdar.callbacks.curriculum")
    log.addHandler(handler)
    try:
        monitor.on_iteration(SimpleNamespace(is_global_zero=True), module, SimpleNamespace(index=0))
    finally:
        log.removeHandler(handler)
    return records


def test_the_counters_survive_a_checkpoint():
    ill = HEALTHY | {"rollout/entropy": 0.05}
    first = CurriculumMonitor(patience=2)
    first.check(HEALTHY)
    first.check(ill)
    second = CurriculumMonitor(patience=2)
    second.load_state_dict(first.state_dict())
    assert len(second.check(ill)) == 1


def test_alarms_are_warnings_that_name_the_iteration(caplog):
    policy = toy_policy()
    monitor = CurriculumMonitor(patience=1, teacher_context_fraction=0.0)
    with caplog.at_level(logging.WARNING, logger="sdar"):
        train(toy_module(policy, HintTeacher()), toy_datamodule(policy), 2, callbacks=[monitor])
    (message,) = [r.getMessage() for r in caplog.records if "privileged text" in r.getMessage()]
    assert message.startswith("iteration 0: ")
