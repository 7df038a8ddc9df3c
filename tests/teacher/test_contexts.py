"""What teachers read: whole items or none, the right demonstrations, and the same after a resume."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint

from sdar.episode import EndReason, Episode, Observation, Preface, Task, TaskOutcome, Turn
from sdar.errors import UserError
from sdar.learning.batch import pack_teacher
from sdar.policy.chat import ChatFormat, Position
from sdar.skills.bm25 import BM25Retrieval
from sdar.skills.controls import AdversarialRetrieval, RandomRetrieval
from sdar.skills.library import Skill, SkillKind, SkillLibrary
from sdar.skills.retrieval import FullRetrieval, KeywordRetrieval, NoRetrieval, Retrieval
from sdar.skills.ucb import UCBRetrieval
from sdar.teacher.base import join
from sdar.teacher.context import ContextTeacher, SkillTeacher, row_tokens
from sdar.teacher.demonstrations import DemonstrationPart, SiblingPart
from sdar.teacher.skills import SkillPart
from toys.chat_templates import BY_NAME
from toys.rollouts import CountingEnvironment
from toys.training import LettersEnvironment, same_weights, toy_datamodule, toy_module, toy_policy, train, weights

LIBRARY = SkillLibrary(
    (
        Skill("basics", SkillKind.GENERAL, (), (), "Look first."),
        Skill("a", SkillKind.TASK, ("type 0",), ("a",), "Say a."),
        Skill("b", SkillKind.TASK, ("type 1",), (), "Say b, twice."),
        Skill("c", SkillKind.TASK, ("type 2",), ("say",), "Say c."),
    )
)
STRATEGIES: dict[str, Callable[[], Retrieval]] = {
    "keyword": KeywordRetrieval,
    "ucb": UCBRetrieval,
    "ucb, gap": lambda: UCBRetrieval(reward="gap_on_success", exploration=0.5),
    "random": RandomRetrieval,
    "full": FullRetrieval,
    "bm25": BM25Retrieval,
    "none": lambda: NoRetrieval(general=False),
    "adversarial": AdversarialRetrieval,
}
TEACHERS: dict[str, Callable[[], ContextTeacher]] = {
    **{name: lambda make=make: SkillTeacher(LIBRARY, make()) for name, make in STRATEGIES.items()},  # type: ignore[misc]
    "demonstration": lambda: ContextTeacher({"demonstration": DemonstrationPart(origin="own", keep=2)}),
    "sibling": lambda: ContextTeacher({"sibling": SiblingPart()}),
    "skills_and_demonstration": lambda: ContextTeacher(
        {"skills": SkillPart(LIBRARY, UCBRetrieval()), "demonstration": DemonstrationPart(observations=False)}
    ),
}


def task(name: str = "t", description: str = "say a a", task_type: str = "type 0") -> Task:
    return Task(name, task_type, description, "train", "hash")


def episode(
    member: int, total: float, turns: int = 1, *, of: Task | None = None, end: EndReason | None = None
) -> Episode:
    made = [Turn([1], [2], "", f"act {member}.{n}", True, Observation(f"seen {n}", None, "")) for n in range(turns)]
    if made:
        made[-1].reward = total
    solved = total > 5
    return Episode(of or task(), member, made, end or (EndReason.SUCCESS if solved else EndReason.FAILURE), solved)


def connected(teacher: ContextTeacher, environment: Any = None, context_tokens: int | None = None) -> ContextTeacher:
    teacher.connect(environment or LettersEnvironment(), len, context_tokens)
    return teacher


# ------------------------------------------------------------------ budget


@given(budget=st.integers(1, 200), description=st.sampled_from(["say a", "a", "nothing"]))
def test_a_budget_gives_up_whole_skills_the_lowest_rank_first(budget: int, description: str) -> None:
    one = task(description=description)
    free = connected(SkillTeacher(LIBRARY, FullRetrieval()))
    tight = connected(SkillTeacher(LIBRARY, FullRetrieval(), budget_tokens=budget))
    text = tight.privileged_text(one)
    assert len(text) <= budget
    assert tight.reserved_tokens(one) == min(budget, free.reserved_tokens(one))
    ranked = [choice.skill for choice in FullRetrieval().ranked(LIBRARY, one)]
    kept = [skill for skill in ranked if f"{skill.text}\n\n" in text]
    assert kept == ranked[: len(kept)]
    if len(kept) < len(ranked):  # one more would have been too much
        assert len(text) + len(ranked[len(kept)].text) + 2 > budget or not kept
    tight.contexts([episode(0, 0, of=one), episode(1, 0, of=one)])
    (share,) = tight.gather([])
    assert share["usage"]["given_up"] == {skill.name: 2 for skill in sorted(ranked[len(kept) :], key=lambda s: s.name)}
    assert share["usage"]["without_text"] == (0 if kept else 2)


def test_skills_are_given_up_after_the_demonstration() -> None:
    parts = {"skills": SkillPart(LIBRARY, KeywordRetrieval()), "sibling": SiblingPart()}
    group = [episode(0, 10), episode(1, 0)]
    skills = connected(SkillTeacher(LIBRARY, KeywordRetrieval())).privileged_text(task())
    whole = connected(ContextTeacher(parts)).contexts(group)[1]
    assert whole.startswith(skills)
    assert "act 0.0" in whole
    assert connected(ContextTeacher(parts, budget_tokens=len(whole))).contexts(group)[1] == whole
    assert connected(ContextTeacher(parts, budget_tokens=len(whole) - 1)).contexts(group)[1] == skills


def test_what_has_no_room_beside_its_episode_is_given_up_whole_and_counted() -> None:
    group = [episode(0, 10), episode(1, 0, turns=3)]
    sibling = connected(ContextTeacher({"sibling": SiblingPart()})).contexts(group)[1]
    used = row_tokens(group[1])
    assert used == 6
    for room, text, given_up in ((len(sibling), sibling, {}), (len(sibling) - 1, "", {"sibling": 1})):
        teacher = connected(ContextTeacher({"sibling": SiblingPart()}), context_tokens=used + room)
        assert teacher.contexts(group)[1] == text
        (share,) = teacher.gather(group)
        assert share["usage"]["given_up"] == given_up


def test_the_longest_row_of_an_episode_is_a_turn_where_every_turn_is_a_prompt() -> None:
    one = episode(0, 0, turns=3)
    for turn in one.turns:
        turn.splice_index = 0
    assert row_tokens(one) == 2
    one.turns[1].splice_index = None
    assert row_tokens(one) == 6


# ------------------------------------------------------------------ libraries for other tasks


def general_alone(library: SkillLibrary) -> SkillLibrary:
    return SkillLibrary(tuple(library.general))


@pytest.mark.parametrize(
    ("skills", "retrieval", "warning"),
    [
        (LIBRARY, KeywordRetrieval(), ""),
        (general_alone(LIBRARY), KeywordRetrieval(), ""),
        (SkillLibrary.load("webshop"), NoRetrieval(), ""),
        (SkillLibrary.load("webshop"), RandomRetrieval(), "the skills are for tasks of the types apparel, beauty"),
        (SkillLibrary.load("webshop"), KeywordRetrieval(), "the skills are for tasks of the types apparel, beauty"),
        (
            SkillLibrary((Skill("a", SkillKind.TASK, ("type 0",), ("nowhere",), "Say a."),)),
            KeywordRetrieval(),
            "the retrieval finds only general skills for all ",
        ),
    ],
)
def test_a_library_that_fits_no_task_is_told(
    skills: SkillLibrary, retrieval: Retrieval, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    connected(SkillTeacher(skills, retrieval))
    assert [warning in record.getMessage() for record in caplog.records] == ([True] if warning else [])


# ------------------------------------------------------------------ demonstrations


def test_the_sibling_is_the_best_other_episode() -> None:
    group = [
        episode(0, 10, turns=3),
        episode(1, 10, turns=2),
        episode(2, 10, turns=2),
        episode(3, 0),
        episode(4, 10, end=EndReason.ERROR_ENVIRONMENT),
    ]
    texts = connected(ContextTeacher({"sibling": SiblingPart()})).contexts(group)
    assert ["act 1.0" in text for text in texts] == [True, False, True, True, True]
    assert "act 2.0" in texts[1]
    assert texts[0] == ("[Privileged Demonstration]\nThe task was: say a a\nseen 0\n> act 1.0\nseen 1\n> act 1.1\n\n")


def test_without_another_solved_episode_there_is_no_sibling_unless_failures_are_wanted() -> None:
    group = [episode(0, 10), episode(1, 0), episode(2, 1)]
    solved = connected(ContextTeacher({"sibling": SiblingPart()})).contexts(group)
    assert [bool(text) for text in solved] == [False, True, True]
    best = connected(ContextTeacher({"sibling": SiblingPart(only_solved=False, observations=False)})).contexts(group)
    assert "> act 2.0" in best[0]
    assert "seen" not in best[0]
    assert connected(ContextTeacher({"sibling": SiblingPart(only_solved=False)})).contexts(group[:1]) == [""]


def test_siblings_are_not_known_before_and_leave_evaluation_with_skills_out() -> None:
    assert not ContextTeacher({"sibling": SiblingPart()}).known_before
    assert not ContextTeacher({"s": SkillPart(LIBRARY, KeywordRetrieval()), "sibling": SiblingPart()}).known_before
    assert SkillTeacher(LIBRARY, KeywordRetrieval()).known_before


def test_a_demonstration_is_an_experts_solution_of_another_task_of_the_type() -> None:
    environment = CountingEnvironment()
    teacher = connected(ContextTeacher({"demonstration": DemonstrationPart(origin="expert")}), environment)
    tasks = environment.tasks("train")
    texts = {}
    for iteration in range(5):
        teacher.begin(tasks, iteration=iteration, seed=1)
        for one in tasks:
            text = teacher.privileged_text(one, 0)
            assert text == teacher.privileged_text(one, 5)
            shown = next(other for other in tasks if f"The task was: {other.description}\n" in text)
            assert shown.task_type == one.task_type
            assert shown.task_id != one.task_id
            assert text.count("> act") == shown.payload % 4 + 2
            texts.setdefault(one.task_id, set()).add(text)
    assert any(len(found) > 1 for found in texts.values())
    valid = environment.tasks("valid")[0]
    fixed = teacher.evaluation_text(valid)
    teacher.begin(tasks, iteration=99, seed=5)
    assert fixed == teacher.evaluation_text(valid) != ""


def test_own_demonstrations_are_remembered_by_type_the_newest_first_to_stay() -> None:
    teacher = connected(ContextTeacher({"demonstration": DemonstrationPart(origin="own", keep=2)}))
    asked = task("asked")
    for number, total in enumerate((10, 10, 0, 10)):
        teacher.begin([asked, task(f"t{number}")], iteration=number, seed=0)
        solved = task(f"t{number}", f"say {number}")
        group = [episode(0, total, of=solved), episode(1, total, of=solved)]
        outcomes = [TaskOutcome(asked, 0, 0, 0, None), TaskOutcome(solved, 2, total, total / 10, None)]
        teacher.contexts(group)
        teacher.observe(outcomes, teacher.gather(group))
    assert teacher.record()["own_demonstrations"] == {"type 0": 2}
    seen = set()
    for iteration in range(20):
        teacher.begin([asked, task("t3"), task("z", task_type="type 1")], iteration=iteration, seed=0)
        seen.add(teacher.privileged_text(asked).splitlines()[1])
        assert "say 3" not in teacher.privileged_text(task("t3"))
        assert teacher.privileged_text(task("z", task_type="type 1")) == ""
    assert seen == {"The task was: say 1", "The task was: say 3"}


def test_an_expert_may_have_no_solution_to_single_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = CountingEnvironment()
    first, expert = environment.tasks("train")[0], environment.expert
    monkeypatch.setattr(environment, "expert", lambda one: None if one == first else expert(one))
    teacher = connected(ContextTeacher({"demonstration": DemonstrationPart(origin="expert")}), environment)
    teacher.begin([first], iteration=0, seed=1)
    assert "The task was" in teacher.privileged_text(first)


def test_an_expert_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="letters has no expert solution for any training task; set it to own"):
        connected(ContextTeacher({"demonstration": DemonstrationPart(origin="expert")}))


# ------------------------------------------------------------------ evaluation, resume


@pytest.mark.parametrize("name", STRATEGIES)
def test_evaluations_read_the_right_skills_whatever_the_strategy_and_change_nothing(name: str) -> None:
    teacher = connected(SkillTeacher(LIBRARY, STRATEGIES[name]()))
    teacher.begin([task()], iteration=0, seed=0)
    before, text = teacher.state(), teacher.privileged_text(task())
    expected = SkillTeacher(LIBRARY, KeywordRetrieval())
    assert teacher.evaluation_text(task("elsewhere")) == expected.privileged_text(task("elsewhere"))
    assert (teacher.state(), teacher.privileged_text(task())) == (before, text)


def run(name: str, context: str, iterations: int, **settings: Any) -> Any:
    policy = toy_policy()
    teacher = TEACHERS[name]()
    data = toy_datamodule(policy, context=context)
    data.teacher = teacher
    join(teacher, data.environment, policy)
    module = toy_module(policy, teacher, context=context, distillation_coefficient=0.5)
    curve = train(module, data, iterations, **settings)
    return module, curve.curve(), teacher


IN_WINDOWS = ("keyword", "ucb", "random", "sibling", "skills_and_demonstration")


@pytest.mark.parametrize(
    ("name", "context"), [*((name, "append") for name in TEACHERS), *((name, "window") for name in IN_WINDOWS)]
)
def test_a_resumed_run_reads_and_learns_what_the_run_that_was_not_stopped_did(
    name: str, context: str, tmp_path: Any
) -> None:
    saving = ModelCheckpoint(dirpath=tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    whole, curve, teacher = run(name, context, 2, callbacks=[saving], enable_checkpointing=True)
    again, rest, resumed = run(name, context, 2, ckpt_path=str(tmp_path / "epoch=0.ckpt"))
    assert same_weights(weights(whole), weights(again))
    assert rest == {1: curve[1]}
    assert teacher.state() == resumed.state()
    assert whole.report.contexts == again.report.contexts
    assert whole.report.record["episodes"] == 12
    if name not in ("none", "demonstration", "sibling"):
        assert all(whole.report.contexts)


def test_members_of_a_group_read_skills_of_their_own_where_they_are_drawn_per_episode() -> None:
    module, _, _ = run("random", "append", 1)
    contexts = module.report.contexts
    assert len(set(contexts)) > 1
    assert any(len(set(contexts[i : i + 3])) > 1 for i in range(0, 12, 3))


def test_a_bandit_whose_skills_are_in_the_prompts_learns_without_a_scored_teacher() -> None:
    policy, teacher = toy_policy(), TEACHERS["ucb"]()
    environment = LettersEnvironment()
    prompted = toy_datamodule(policy, environment=environment, teacher=teacher, skills_in_prompt=True)
    join(teacher, environment, policy)
    reading = {"score_teacher": False, "skills_in_prompt": True}
    module = toy_module(policy, teacher, distillation_coefficient=0.0, **reading)
    curve = train(module, prompted, 2).steps[1]
    arms = teacher.record()["ucb"]
    assert sum(arm["rewards"] for found in arms.values() for arm in found.values()) == 8
    assert curve["skills/used/basics"] == 1.0
    assert module.report.record["episodes"] == 12
    assert module.report.contexts is None


def test_a_teacher_that_nobody_reads_logs_nothing() -> None:
    policy, teacher = toy_policy(), TEACHERS["keyword"]()
    data = toy_datamodule(policy)
    data.teacher = teacher
    join(teacher, data.environment, policy)
    module = toy_module(policy, teacher, score_teacher=False, distillation_coefficient=0.0)
    assert not [name for name in train(module, data, 1).steps[0] if name.startswith("skills/")]
    assert module.report.record == {}


def test_text_of_finished_episodes_fits_behind_what_their_preface_changes() -> None:
    """With this template a block behind a system message has a token more than one without."""
    base = ChatFormat.from_tokenizer(BY_NAME["llama3.1"].tokenizer("bpe"))
    teacher = ContextTeacher({"sibling": SiblingPart()}, position=Position.SYSTEM)
    preface, seen = Preface("Be brief."), Observation("What is 1 + 1?", None, "a")
    read = set()
    for context_tokens in range(60, 260):
        policy: Any = SimpleNamespace(chat=base, context_tokens=context_tokens)
        join(teacher, CountingEnvironment(), policy)
        chat = policy.chat.prefaced(preface)
        ids, splice = chat.opening(seen.text)
        episodes = []
        for member, end in enumerate((EndReason.SUCCESS, EndReason.FAILURE)):
            turn = Turn(ids, [5] * 20, "x", "2", True, seen, splice_index=splice)
            episodes.append(Episode(task(), member, [turn], end, success=end is EndReason.SUCCESS))
            episodes[-1].preface, episodes[-1].opening = preface, seen.text
        texts = teacher.contexts(episodes)
        read.update(texts)
        if context_tokens > row_tokens(episodes[0]):
            pack_teacher(episodes, [chat.privileged(text) for text in texts], 0, context_tokens)
    assert len(read) > 1
