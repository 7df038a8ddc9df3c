from __future__ import annotations

import logging
import re
import sys

import pytest

from sdar.callbacks.duration import duration
from sdar.callbacks.progress import ProgressLine, progress_line
from toys.training import HintTeacher, toy_datamodule, toy_module, toy_policy, train


def test_one_line_per_iteration_with_an_estimate_of_the_rest(capsys):
    policy = toy_policy()
    train(toy_module(policy, HintTeacher()), toy_datamodule(policy), 2, callbacks=[ProgressLine()])
    first, last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("iteration")]
    assert re.fullmatch(
        r"iteration 1/2  success +\d+%  endorsed +\d+%  gap [+-]\d\.\d{3}  \d+\.\d s  \d+ s left", first
    )
    assert last.startswith("iteration 2/2")
    assert "left" not in last


def test_lines_can_be_thinned_out_but_the_last_is_printed(capsys):
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0)
    train(module, toy_datamodule(policy, tasks=1, group_size=2), 3, callbacks=[ProgressLine(every_n_iterations=2)])
    lines = [line[:13] for line in capsys.readouterr().out.splitlines() if line.startswith("iteration")]
    assert lines == ["iteration 2/3", "iteration 3/3"]


SCORED = {"rollout/success_rate": 0.453, "curriculum/gap_mean": -0.0274, "curriculum/endorsed_of_open": 0.451}


@pytest.mark.parametrize(
    ("metrics", "clock", "line"),
    [
        (
            SCORED,
            (12, 150, 12.34, 1200),
            "iteration  12/150  success  45%  endorsed  45%  gap -0.027  12.3 s  20 min left",
        ),
        (SCORED, (150, 150, 123.4, None), "iteration 150/150  success  45%  endorsed  45%  gap -0.027  123 s"),
        (SCORED, (3, None, 1.0, None), "iteration 3  success  45%  endorsed  45%  gap -0.027  1.0 s"),
        (
            {**SCORED, "curriculum/gap_mean": -12.3456, "rollout/success_rate": 1.0},
            (1, 10_000, 12_345.6, 987_654_321.0),
            "iteration     1/10000  success 100%  endorsed  45%  gap -12.346  274348.4 h left",
        ),
        ({"curriculum/gap_mean": 0.0}, (1, 2, 1.0, 40), "iteration 1/2  endorsed    -  gap +0.000  1.0 s  40 s left"),
        (
            {"rollout/success_rate": 0, "rollout/entropy": 1.5},
            (1, 2, 1.0, 4),
            "iteration 1/2  success   0%  entropy 1.50  1.0 s  4 s left",
        ),
        ({}, (1, 2, 1.0, 59.6), "iteration 1/2  1.0 s  1 min left"),
    ],
)
def test_the_line_fits_a_terminal(metrics, clock, line):
    assert progress_line(metrics, *clock).plain == line
    assert len(line) <= 80


def test_colours_are_for_terminals_and_the_log_has_none(capsys, caplog, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    policy = toy_policy()
    caplog.set_level(logging.INFO, "sdar")
    for terminal in (False, True):
        caplog.clear()
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        train(toy_module(policy, HintTeacher()), toy_datamodule(policy, tasks=1), 1, callbacks=[ProgressLine()])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "iteration" in line]
        (logged,) = [record.message for record in caplog.records if record.message.startswith("iteration")]
        assert ("\x1b[" in line) == terminal
        assert re.sub(r"\x1b\[[\d;]*m", "", line) == logged


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_short_words(seconds, words):
    assert duration(seconds) == words
