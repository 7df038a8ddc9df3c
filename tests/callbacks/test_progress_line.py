from __future__ import annotations

import re

import pytest

from sdar.callbacks.duration import duration
from sdar.callbacks.progress import ProgressLine
from toys.training import HintTeacher, toy_datamodule, toy_module, toy_policy, train


def test_one_line_per_iteration_with_an_estimate_of_the_rest(capsys):
    policy = toy_policy()
    train(toy_module(policy, HintTeacher()), toy_datamodule(policy), 2, callbacks=[ProgressLine()])
    first, last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("iteration")]
    assert re.fullmatch(
        r"iteration 1/2  success +[\d.]+%  strongly gated +[\d.]+%  entropy [\d.]+  [\d.]+ s  about \d+ s left", first
    )
    assert last.startswith("iteration 2/2")
    assert "left" not in last


def test_lines_can_be_thinned_out_but_the_last_is_printed(capsys):
    policy = toy_policy()
    module = toy_module(policy, distillation_coefficient=0.0)
    train(module, toy_datamodule(policy, tasks=1, group_size=2), 3, callbacks=[ProgressLine(every_n_iterations=2)])
    lines = [line[:13] for line in capsys.readouterr().out.splitlines() if line.startswith("iteration")]
    assert lines == ["iteration 2/3", "iteration 3/3"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_short_words(seconds, words):
    assert duration(seconds) == words
