"""The teacher's rows of a task share their beginning: learning is the same, and an empty block still has no gap."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sdar.learning.batch import TokenRows
from sdar.learning.beginnings import FEWEST, shared_beginnings
from sdar.objective.divergence import Sampled
from sdar.objective.full_vocabulary import ReverseKL
from sdar.objective.gate import NoGate
from sdar.teacher.weights import TeacherSource
from toys.training import HintTeacher, learned, toy_datamodule, toy_module, toy_policy, train

WHOLE_VOCABULARY = {"divergence": ReverseKL(), "gate": NoGate()}
FAST = {"learning_rate": 0.03, "episodes_per_step": 2}
"""So that beginnings of before an optimizer step would show."""


def made(ids: list[list[int]], first: list[int | None]) -> TokenRows:
    """Rows of one length whose responses begin at ``first`` (None: there is none)."""
    tensor = torch.tensor(ids)
    places = torch.arange(tensor.shape[1])
    mask = torch.stack([places >= (tensor.shape[1] if start is None else start) for start in first])
    return TokenRows(tensor, torch.ones_like(mask), mask)


def test_rows_of_a_group_share_what_all_of_them_begin_with() -> None:
    one = list(range(40))
    other = [*range(30), *range(100, 110)]
    rows = made([one, one, other, one, one], [35, 32, 38, 35, None])
    assert shared_beginnings(rows, ["a", "a", "b", "c", "a"]) == [31, 31, 0, 0, 0]  # 31 predicts 32
    assert shared_beginnings(rows, ["a", "b", "a", "c", "a"]) == [30, 0, 30, 0, 0]
    assert shared_beginnings(rows, list("abcde")) == [0] * 5
    # A rank whose episodes all ended by errors has rows of no width.
    assert shared_beginnings(made([[], []], [None, None]), ["a", "a"]) == [0, 0]


def test_short_beginnings_are_not_worth_it() -> None:
    for count in (FEWEST - 1, FEWEST):
        rows = made([[*range(count), 50, 51, 52], [*range(count), 60, 61, 62]], [count + 2, count + 2])
        assert shared_beginnings(rows, ["a", "a"]) == [count * (count >= FEWEST)] * 2


def curve(share: bool, context: str, iterations: int = 3, **settings: Any) -> dict[int, dict[str, float]]:
    source = settings.pop("source", TeacherSource.OLD)
    lora = settings.pop("lora", None)
    policy = toy_policy(lora=lora)
    kept = settings.pop("keep_hidden", False)
    teacher = HintTeacher(source=source, share_prefixes=share, keep_hidden=kept)
    module = toy_module(policy, teacher, context=context, distillation_coefficient=0.5, **settings)
    found = train(module, toy_datamodule(policy, context=context, teacher=teacher), iterations).curve()
    assert any(module.report.prepared.teacher.shared_tokens) is share
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("context", ["append", "window"])
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"divergence": Sampled()}, id="old"),
        pytest.param({"divergence": Sampled(), "source": TeacherSource.CURRENT, **FAST}, id="current"),
        pytest.param({**WHOLE_VOCABULARY, "source": TeacherSource.CURRENT, **FAST}, id="current, whole vocabulary"),
        pytest.param({**WHOLE_VOCABULARY, "source": TeacherSource.INITIAL}, id="initial"),
        pytest.param({**WHOLE_VOCABULARY, "source": TeacherSource.EMA}, id="ema"),
        pytest.param({**WHOLE_VOCABULARY, "keep_hidden": True}, id="kept"),
        pytest.param(
            {**WHOLE_VOCABULARY, "source": TeacherSource.INITIAL, "lora": {"rank": 4}}, id="adapters switched off"
        ),
    ],
)
def test_learning_is_the_same(context: str, settings: dict[str, Any]) -> None:
    """Several optimizer steps an iteration: a teacher that moves must not be asked with beginnings of before."""
    shared, whole = (curve(share, context, **settings) for share in (True, False))
    for step, figures in whole.items():
        for name in learned(figures):
            assert shared[step][name] == pytest.approx(figures[name], abs=2e-4, rel=2e-3), (step, name)


@pytest.mark.parametrize("source", [TeacherSource.OLD, TeacherSource.CURRENT, TeacherSource.INITIAL])
def test_without_a_block_nothing_is_shared_and_the_gap_is_exactly_0(source: TeacherSource) -> None:
    policy = toy_policy()
    teacher = HintTeacher("", source=source)
    module = toy_module(policy, teacher)
    figures = train(module, toy_datamodule(policy, teacher=teacher), 1).steps[0]
    assert figures["curriculum/gap_mean"] == figures["curriculum/gap_std"] == 0.0
    assert not any(module.report.prepared.teacher.shared_tokens)
