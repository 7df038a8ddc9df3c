"""The hindsight teacher: what its analyzers say about hand-made episodes, and that it says it deterministically."""

from __future__ import annotations

import pytest

from sdar.environments.alfworld.environment import AlfworldEnvironment
from sdar.episode import EndReason, Episode, Observation, Task, Turn
from sdar.errors import UserError
from sdar.teacher.hindsight import HindsightTeacher, PolicyAnalyzer, RuleAnalyzer
from toys.methods import method_run
from toys.training import same_weights, toy_module, toy_policy, train, weights


def episode(steps, *, solved=False, task="a", member=0, end=None):
    """``steps``: (state, action) or (state, action, valid); the last state is where the episode ended."""
    states = [Observation(f"you see {state}", None, state) for state, *_ in steps] + [Observation("end", None, "end")]
    turns = [
        Turn([1], [2], action, action, (rest or (True,))[0], states[n]) for n, (_, action, *rest) in enumerate(steps)
    ]
    ended = end or (EndReason.SUCCESS if solved else EndReason.TURN_LIMIT)
    it = Episode(Task(task, "type", "find the mug", "train", "hash"), member, turns, ended, solved)
    it.last_observation = states[-1]
    return it


SOLVED = episode([("hall", "go in"), ("room", "look"), ("room", "take mug")], solved=True, member=0)
LOST = episode([("hall", "look"), ("hall", "sing", False), ("hall", "look"), ("hall", "go out")], member=1)
BROKEN = episode([("hall", "crash")], end=EndReason.ERROR_TOOL, member=2)


def teacher(budget=1000, **rules):
    it = HindsightTeacher(RuleAnalyzer(**rules), budget_tokens=budget, header="[H]")
    it.connect(None, len)
    return it


def test_an_episode_whose_first_prompt_had_no_room_has_nothing_to_tell():
    empty = Episode(Task("t", "type", "find the mug", "train", "hash"), 3, [], EndReason.CONTEXT_FULL, False)
    empty.last_observation = Observation("seen", None, "hall")
    solved, lost, unread = RuleAnalyzer().lines([[SOLVED, LOST, empty]])[0]
    assert solved
    assert lost
    assert unread == ["Do what another attempt solved it with: go in, then take mug."]


def test_rules_by_hand():
    solved, lost = RuleAnalyzer().lines([[SOLVED, LOST]])[0]
    assert solved == [
        "This attempt solves the task: go in, then take mug.",
        "Avoid what changes nothing here: look.",
    ]
    assert lost == [
        "Do what another attempt solved it with: go in, then take mug.",
        "Avoid what changes nothing here: look.",
        "Keep to the format of an action.",
    ]


def test_a_command_of_a_real_household_that_could_not_be_carried_out_is_no_part_of_the_solution():
    """ALFWorld answers it with words that are no state; the state after it is the one before."""
    environment = AlfworldEnvironment(num_tasks=[6, 6, 6])
    task = environment.tasks("train")[0]
    commands = environment.expert(task)
    useless = "open fridge 99"
    pool = environment.open_pool()
    (seen,) = pool.reset([task])
    turns = []
    for command in [commands[0], useless, *commands[1:]]:
        (outcome,) = pool.step({0: command}).values()
        turns.append(Turn([1], [2], command, command, True, seen))
        seen = outcome.observation
    assert outcome.success
    it = Episode(task, 0, turns, EndReason.SUCCESS, True)
    it.last_observation = seen
    solution, avoid = RuleAnalyzer().lines([[it]])[0][0]
    assert solution == f"This attempt solves the task: {', then '.join(commands)}."
    assert avoid == f"Avoid what changes nothing here: {useless}."


def test_siblings_may_be_left_out_of_it_and_lines_are_short():
    assert RuleAnalyzer(siblings=False).lines([[SOLVED, LOST]])[0][1][0] == "Avoid what changes nothing here: look."
    assert RuleAnalyzer(at_most=1).lines([[SOLVED]])[0][0][0] == "This attempt solves the task: take mug."


def test_every_episode_has_a_text_of_its_own_and_broken_ones_none():
    texts = teacher().contexts([SOLVED, LOST, BROKEN])
    assert texts[0].startswith("[H]\nThis attempt solves")
    assert texts[1].startswith("[H]\nDo what another")
    assert texts[1].endswith("action.\n\n")
    assert texts[2] == ""
    others = teacher().contexts([episode([("hall", "go in")], solved=True, task="b"), LOST])
    assert "Do what another" not in others[1]  # another task's solution is none of this one's


def test_lines_that_do_not_fit_are_left_out_whole_and_counted():
    whole = teacher().contexts([LOST])[0]
    it = teacher(budget=len(whole) - 1)
    assert it.contexts([LOST])[0] == "[H]\nAvoid what changes nothing here: look.\n\n"
    it.observe([], [*it.gather([LOST]), (3, 4)])
    assert it.metrics() == {"teacher/hindsight_lines": 4.0, "teacher/hindsight_lines_dropped": 5.0}
    assert teacher(budget=1).contexts([LOST]) == [""]


def test_nothing_is_known_before_an_episode_and_room_is_left_for_it():
    it = teacher(budget=77)
    assert it.privileged_text(SOLVED.task) == ""
    assert it.reserved_tokens(SOLVED.task) == 77
    assert it.evaluation_tokens(SOLVED.task) == 0
    with pytest.raises(UserError, match="only known after the episode"):
        toy_module(toy_policy(), it, score_teacher=False, distillation_coefficient=0, skills_in_prompt=True)


def asked(policy, episodes, iteration=0, **settings):
    analyzer = PolicyAnalyzer(instruction="?", max_tokens=5, **settings)
    analyzer.use(policy)
    analyzer.begin(iteration, seed=1)
    return analyzer.lines(episodes)


def test_the_policy_is_asked_about_every_episode_by_its_own_draw():
    policy = toy_policy()
    both = asked(policy, [[SOLVED, LOST]])
    assert asked(policy, [[SOLVED, LOST]], max_concurrent=1) == both
    assert [asked(policy, [[one]])[0][0] for one in (SOLVED, LOST)] == both[0]
    assert asked(policy, [[SOLVED, LOST]], iteration=1) != both


def test_an_episode_that_is_too_long_is_told_from_its_later_turns_on(monkeypatch):
    policy = toy_policy()
    long = episode([("hall", "x" * 100), ("hall", "y" * 100), ("hall", "z" * 100)])
    fed = []

    class Recorder:
        def start(self, num_slots):
            assert num_slots == 1

        def respond(self, new_ids, uniforms):
            fed.append(policy.chat.decode(new_ids[0]))
            return {0: [policy.chat.end_id]}

    with monkeypatch.context() as patched:
        patched.setattr("sdar.teacher.hindsight.turn_generator", lambda policy, sampling: Recorder())
        asked(policy, [[long]])
    (text,) = fed
    assert "z" * 100 in text
    assert "x" * 100 not in text
    assert asked(policy, [[episode([("hall", "a")], task="a")]])[0][0] is not None
    silent = PolicyAnalyzer(instruction="?" * 300, max_tokens=5)
    silent.use(policy)
    assert silent.lines([[long]]) == [[[]]]


ROOM = "teacher.budget_tokens=100"
"""For the lines about three actions."""


@pytest.mark.parametrize("context", ["append", "window"])
def test_teachers_score_each_episode_with_its_own_lines(context):
    module, data = method_run("hindsight", ROOM, context=context)
    curve = train(module, data, 2).curve()
    assert curve[0]["curriculum/gap_std"] > 0
    assert curve[0]["teacher/hindsight_lines"] > 0
    assert len(set(module.report.prepared.teacher.privileged_tokens)) > 1


def test_an_episode_about_which_there_is_nothing_to_say_has_a_gap_of_exactly_zero():
    """Also where its neighbours in the batch have longer rows."""
    module, data = method_run("hindsight", ROOM, max_tokens_per_micro_batch=100_000)
    lines = RuleAnalyzer.lines
    module.teacher.analyzer.lines = lambda groups: [
        [found if n % 2 else [] for n, found in enumerate(group)] for group in lines(RuleAnalyzer(), groups)
    ]
    train(module, data, 1)
    prepared = module.report.prepared
    gaps = (prepared.batch.teacher_log_probs - prepared.batch.old_log_probs).abs().sum(dim=1)
    bare = [tokens == 0 for tokens in prepared.teacher.privileged_tokens]
    assert any(bare)
    assert not all(bare)
    assert all(
        (gap == 0) is (empty or length == 0)
        for gap, empty, length in zip(gaps.tolist(), bare, prepared.batch.lengths(), strict=True)
    )


def test_the_policy_as_analyzer_trains_the_same_twice():
    found = []
    for _ in range(2):
        short = ["teacher.analyzer.max_tokens=6", "teacher.analyzer.instruction=why"]
        module, data = method_run("hindsight", "teacher=hindsight_by_policy", *short)
        curve = train(module, data, 2).curve()
        found.append((weights(module), curve))
    assert same_weights(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert found[0][1][0]["teacher/hindsight_lines"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: HindsightTeacher(RuleAnalyzer(), budget_tokens=0),
            "HindsightTeacher: budget_tokens must be",
        ),
        (lambda: RuleAnalyzer(at_most=0), "RuleAnalyzer: at_most must be"),
        (lambda: PolicyAnalyzer(max_concurrent=0), "PolicyAnalyzer: max_concurrent must be"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(UserError, match=f"^{message} a whole number >= 1, got 0$"):
        make()
