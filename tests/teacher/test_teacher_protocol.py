"""When a training asks its teacher what, and what it tells it."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from sdar.episode import Task
from sdar.errors import UserError
from sdar.evaluation.panel import make_panel
from sdar.teacher.base import Teacher, join
from sdar.teacher.weights import TeacherWeights
from toys.training import HintTeacher, LettersEnvironment, same_weights, toy_datamodule, toy_module, toy_policy, train
from toys.training import weights as weights_of


class Diary(Teacher):
    """Writes down what it is asked and told; its text counts the episodes that it has heard of."""

    def __init__(self) -> None:
        self.weights = TeacherWeights()
        self.heard = 0
        self.calls: list[Any] = []

    def begin(self, tasks: Sequence[Task], *, iteration: int, seed: int) -> None:
        self.calls.append(("begin", iteration, seed, [task.task_id for task in tasks]))

    def privileged_text(self, task: Task, member: int = 0) -> str:
        return f"{self.heard} heard, now {task.task_id} {member}.\n"

    def contexts(self, episodes: Any) -> list[str]:
        self.episodes = list(episodes)
        self.calls.append(("contexts", [(e.task.task_id, e.member) for e in episodes]))
        return super().contexts(episodes)

    def gather(self, episodes: Any) -> list[Any]:
        return [(e.task.task_id, e.member) for e in episodes]

    def observe(self, outcomes: Any, gathered: Any) -> None:
        self.calls.append(("observe", outcomes, gathered))
        self.heard += len(gathered)

    def metrics(self) -> dict[str, float]:
        return {"skills/heard": float(self.heard)}

    def state(self) -> dict[str, Any]:
        return {"heard": self.heard}

    def load_state(self, state: Any) -> None:
        self.heard = state["heard"]


def run(iterations: int, *, diary: Diary | None = None, **settings: Any) -> Any:
    diary = diary or Diary()
    policy = toy_policy()
    data = toy_datamodule(policy, environment=LettersEnvironment(broken=True), tasks=9)
    data.teacher = diary
    module = toy_module(policy, diary, distillation_coefficient=0.5)
    return diary, module, train(module, data, iterations, **settings)


def test_a_teacher_is_asked_in_this_order_and_told_what_became_of_every_task() -> None:
    diary, _, curve = run(1)
    begin, contexts, observe = diary.calls
    tasks = begin[3]
    assert begin[:3] == ("begin", 0, 1)
    assert contexts[1] == [(task, member) for task in tasks for member in range(3)] == observe[2]
    assert [outcome.task.task_id for outcome in observe[1]] == tasks
    assert curve.steps[0]["skills/heard"] == 27
    by_task = {outcome.task.task_id: outcome for outcome in observe[1]}
    broken = by_task.pop("train-0")
    assert (broken.episodes, broken.mean_return, broken.success_rate, broken.gap_on_success) == (0, 0, 0, None)
    assert {outcome.episodes for outcome in by_task.values()} == {3}
    for outcome in by_task.values():
        assert outcome.mean_return == pytest.approx(10 * outcome.success_rate)
        assert (outcome.gap_on_success is None) == (outcome.success_rate == 0)


def test_the_gap_of_a_task_is_the_mean_over_the_tokens_of_its_solved_episodes() -> None:
    diary, module, _ = run(1)
    batch = module.report.prepared.batch
    for outcome in diary.calls[2][1]:
        expected = [
            float(batch.teacher_log_probs[row, column].double() - batch.old_log_probs[row, column].double())
            for row, number in enumerate(batch.episode_index.tolist())
            for column in range(batch.ids.shape[1])
            if batch.response_mask[row, column]
            and diary.episodes[number].success
            and diary.episodes[number].task == outcome.task
        ]
        if not expected:
            assert outcome.gap_on_success is None
        else:
            assert outcome.gap_on_success == pytest.approx(sum(expected) / len(expected), abs=1e-12)
    assert any(outcome.gap_on_success for outcome in diary.calls[2][1])


def test_what_a_teacher_remembers_comes_back_with_a_checkpoint(tmp_path) -> None:
    saving = ModelCheckpoint(dirpath=tmp_path, filename="half", save_on_train_epoch_end=True)
    whole, module, curve = run(4)
    run(2, callbacks=[saving], enable_checkpointing=True)
    resumed, again, rest = run(4, ckpt_path=str(tmp_path / "half.ckpt"))
    assert resumed.heard == whole.heard == 4 * 27
    assert same_weights(weights_of(module), weights_of(again))
    for iteration in (2, 3):
        assert rest.curve()[iteration] == curve.curve()[iteration]


def test_a_checkpoint_of_another_teacher_is_refused(tmp_path) -> None:
    saving = ModelCheckpoint(dirpath=tmp_path, filename="one", save_on_train_epoch_end=True)
    run(1, callbacks=[saving], enable_checkpointing=True)
    policy = toy_policy()
    with pytest.raises(UserError, match="ckpt_path names a checkpoint of a run with another teacher"):
        train(toy_module(policy, HintTeacher()), toy_datamodule(policy), 2, ckpt_path=str(tmp_path / "one.ckpt"))


def test_evaluation_text_is_that_of_the_first_member_unless_a_teacher_says_otherwise() -> None:
    task = make_panel(LettersEnvironment(), "valid", 1, 0).tasks[0]
    assert Diary().evaluation_text(task) == Diary().privileged_text(task, 0)


def test_room_is_left_for_the_text_in_rollouts_and_in_evaluations() -> None:
    teacher = HintTeacher("abc")
    teacher.connect(LettersEnvironment(), len)
    task = LettersEnvironment().tasks("train")[0]
    assert teacher.reserved_tokens(task) == teacher.evaluation_tokens(task) == 3


ANSWERS = {
    "contexts: a generator": ("contexts", lambda episodes: ("x" for _ in episodes), "must return a list with a text"),
    "contexts: too few": ("contexts", lambda episodes: ["x"], "one text for each of the 27 episodes, got 1"),
    "contexts: numbers": ("contexts", lambda episodes: [3] * len(episodes), "its text must be a text, got 3"),
    "contexts: a surrogate": ("contexts", lambda episodes: ["\ud800"] * len(episodes), "got the lone surrogate"),
    "metrics: None": ("metrics", lambda: None, "metrics must return a mapping of tags to numbers, got None"),
    "metrics: a text": ("metrics", lambda: {"a": "x"}, "metrics must return numbers by their tags, got 'x' for 'a'"),
    "metrics: no tag": ("metrics", lambda: {3: 1.0}, "metrics must return numbers by their tags, got 1.0 for 3"),
    "record: a list": ("record", lambda: [1], r"record must return a mapping of names to plain values, got \[1\]"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_teacher_may_not_answer_is_told_in_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, answer, words = ANSWERS[name]
    diary = Diary()
    monkeypatch.setattr(diary, method, answer)
    with pytest.raises(UserError, match=f"^teacher Diary: .*{words}"):
        run(1, diary=diary)


def test_numbers_of_other_kinds_are_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    diary = Diary()
    monkeypatch.setattr(diary, "metrics", lambda: {"skills/heard": np.float32(0.5), "skills/more": torch.tensor(2)})
    _, _, memory = run(1, diary=diary)
    assert (memory.steps[0]["skills/heard"], memory.steps[0]["skills/more"]) == (0.5, 2.0)


@pytest.mark.parametrize("answer", [3, ["a list"]])
def test_a_text_that_is_none_is_told_before_anything_is_played(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Diary()
    monkeypatch.setattr(teacher, "privileged_text", lambda task, member=0: answer)
    join(teacher, LettersEnvironment(), toy_policy())
    with pytest.raises(UserError, match=re.escape(f"teacher Diary: its text must be a text, got {answer}")):
        teacher.reserved_tokens(LettersEnvironment().tasks("train")[0])
