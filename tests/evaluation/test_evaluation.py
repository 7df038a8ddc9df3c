from __future__ import annotations

import math

import pytest

from sdar.episode import EndReason, StepOutcome
from sdar.errors import RunFailed
from sdar.evaluation.evaluate import evaluate
from sdar.evaluation.panel import make_panel
from sdar.evaluation.report import check_errors, final_table
from sdar.evaluation.result import EvaluationResult, TaskRecord, merge, summarise
from sdar.evaluation.statistics import wilson_interval
from toys.rollouts import CountingEnvironment, fake_collector, requests


def crash() -> StepOutcome:
    raise RuntimeError("gone")


def result(name: str, *ends: EndReason) -> EvaluationResult:
    records = [TaskRecord(f"t{i}", "ab"[i % 2], e is EndReason.SUCCESS, e, i, 0.0) for i, e in enumerate(ends)]
    return EvaluationResult(name, tuple(records))


S, F, L, E = EndReason.SUCCESS, EndReason.FAILURE, EndReason.TURN_LIMIT, EndReason.ERROR_ENVIRONMENT


def test_every_task_of_the_panel_is_played_once() -> None:
    environment = CountingEnvironment(max_turns=4)
    panel = make_panel(environment, "valid", 12, 0)
    found = evaluate(fake_collector(environment), panel, seed=0)
    assert sorted(record.task_id for record in found.records) == sorted(task.task_id for task in panel.tasks)
    assert (found.n, found.successes, found.errors) == (12, 9, 0)
    assert found.by_type == {"alpha": (4, 3), "beta": (4, 3), "gamma": (4, 3)}
    assert found.ends == {EndReason.SUCCESS: 9, EndReason.TURN_LIMIT: 3}
    assert found.interval == wilson_interval(9, 12)
    assert found.panel_hash == panel.content_hash


def test_evaluation_is_repeatable_and_disturbs_no_training() -> None:
    environment = CountingEnvironment()
    panel = make_panel(environment, "valid", 12, 0)
    plays = fake_collector(environment)
    train = plays.collect(requests(environment), seed=0, key=("train", 0)).episodes
    one = evaluate(plays, panel, seed=0)
    assert evaluate(fake_collector(environment, max_concurrent_episodes=5), panel, seed=0).episodes == one.episodes
    assert plays.collect(requests(environment), seed=0, key=("train", 0)).episodes == train
    assert evaluate(plays, panel, seed=0, name="other").episodes != one.episodes


def test_skills_reach_the_prompt() -> None:
    environment = CountingEnvironment()
    panel = make_panel(environment, "valid", 2, 0)
    plain, helped = (
        evaluate(fake_collector(environment), panel, seed=0, privileged=text) for text in (None, lambda task: "hint")
    )
    for before, after in zip(plain.episodes, helped.episodes, strict=True):
        assert len(after.turns[0].context_ids) == len(before.turns[0].context_ids) + len("hint")


def test_an_error_is_no_failure() -> None:
    environment = CountingEnvironment(faults={"valid-0": (1, crash)})
    found = evaluate(fake_collector(environment), make_panel(environment, "valid", 12, 0), seed=0)
    assert (found.n, found.successes, found.errors) == (11, 8, 1)
    assert found.by_type["alpha"] == (3, 2)
    assert found.ends[EndReason.ERROR_ENVIRONMENT] == 1
    assert "8 of 11" in found.line()
    assert "1 ended by an error and left out" in found.line()


def test_figures_are_counts_divided_once() -> None:
    found = result("x", S, F, S, L, E)
    assert (found.success_rate, found.turns_mean) == (0.5, 6 / 4)
    rates = {"val/success_rate": 0.5, "val/success_rate/a": 1.0, "val/success_rate/b": 0.0}
    assert found.metrics("val") == rates | {"val/macro_success_rate": 0.5}


def scored(*records: tuple[str, EndReason, dict[str, float]]) -> EvaluationResult:
    return EvaluationResult(
        "x", tuple(TaskRecord(f"t{i}", kind, e is S, e, 1, 0.0, scores) for i, (kind, e, scores) in enumerate(records))
    )


def test_success_weighs_tasks_and_the_macro_average_weighs_types() -> None:
    """One question of a small set weighs as much as one of a large set; the unweighted mean has a name of its own."""
    found = scored(*[("large", S, {})] * 3, ("large", F, {}), ("small", F, {}), ("small", E, {}))
    metrics = found.metrics("val")
    assert metrics["val/success_rate"] == 3 / 5
    assert metrics["val/macro_success_rate"] == (3 / 4 + 0 / 1) / 2
    rows = [" ".join(line.replace("|", " ").split()) for line in final_table([found]).splitlines()]
    assert "macro average, % 37.5" in rows
    assert "val/macro_success_rate" not in scored(("only", S, {})).metrics("val")


def test_named_scores_are_means_over_the_episodes_that_count() -> None:
    found = scored(("a", S, {"f1": 1.0}), ("a", F, {"f1": 0.25}), ("b", L, {}), ("b", E, {"f1": 1.0}))
    assert found.scores == {"f1": 1.25 / 3}
    assert found.scores_by_type == {"a": {"f1": 0.625}, "b": {"f1": 0.0}}
    assert found.metrics("val")["val/score/f1"] == 1.25 / 3
    assert "41.7 %" in final_table([found])
    assert EvaluationResult.from_dict(found.to_dict()) == found
    assert [TaskRecord.from_dict(record.to_dict()[:6]).scores for record in found.records] == [{}] * 4


def test_without_a_valid_episode_nothing_is_claimed() -> None:
    found = result("x", E, E)
    assert math.isnan(found.success_rate)
    assert found.interval == (0.0, 1.0)
    assert found.metrics("val") == {}
    assert "no valid episode" in found.line()
    assert " 2 " in final_table([found])


def test_shares_of_several_processes_make_the_whole() -> None:
    environment = CountingEnvironment()
    panel = make_panel(environment, "valid", 11, 0)
    whole = evaluate(fake_collector(environment), panel, seed=0)
    shares = [evaluate(fake_collector(environment), panel, seed=0, rank=rank, world_size=3) for rank in range(3)]
    merged = merge(shares)
    assert set(merged.records) == set(whole.records)
    assert (merged.n, merged.by_type, merged.panel_hash) == (whole.n, whole.by_type, whole.panel_hash)
    assert merge(shares[::-1]).records == merged.records
    with pytest.raises(ValueError, match="counted twice"):
        merge([shares[0], shares[0]])
    with pytest.raises(ValueError, match="same name and panel"):
        merge([shares[0], result("x", S)])


def test_episodes_are_summarised_as_they_are() -> None:
    environment = CountingEnvironment(num_tasks=3)
    episodes = fake_collector(environment).collect(requests(environment, 1), seed=0, key=("val", "x")).episodes
    found = summarise("x", episodes)
    assert [record.num_turns for record in found.records] == [2, 3, 4]
    assert [record.episode_return for record in found.records] == [10.0, 10.0, 10.0]


def test_the_table_shows_every_figure_with_n_and_interval() -> None:
    text = final_table([result("random admissible agent", F, F, F, F), result("trained, with skills", S, S, S, F, E)])
    rows = [" ".join(line.replace("|", " ").split()) for line in text.splitlines()]
    assert "1 random admissible agent 0.0 % 0.0 to 49.0 0 4 1.5" in rows
    assert "2 trained, with skills (!) 75.0 % 30.1 to 95.4 3 4 1.5" in rows
    note = "(!) trained, with skills: 1 of 5 episodes ended by errors: not comparable"
    assert [row for row in rows if row.startswith("(!)")] == [note]
    assert text.isascii()
    assert {"a 0/2 2/2", "b 0/2 1/2"} <= set(rows)


def test_the_table_fits_a_terminal_and_loses_nothing() -> None:
    """What does not fit in 80 columns goes to a further table, which names the agents again."""
    kinds = ("look_at_obj_in_light", "pick_two_obj_and_place", "pick_and_place_simple")
    names = ("random admissible agent", "expert", "closed book (no search)", "warm start", "trained, with skills")
    ends = (S, S, F, S, E, S, L)
    records = tuple(
        TaskRecord(f"t{i}", kinds[i % 3], ends[i % 7] is S, ends[i % 7], 9, 0.0, {"exact_match": 1.0, "f1": 0.5})
        for i in range(240)
    )
    text = final_table([EvaluationResult(name, records) for name in names + names])
    assert max(map(len, text.splitlines())) <= 80
    rows = [" ".join(line.replace("|", " ").split()) for line in text.splitlines()]
    for number, name in enumerate(names + names, start=1):
        assert f"{number} {name} (!) 67.0 % 60.3 to 73.0 138 206" in rows
        assert f"{number} {name} (!) 9.0 100.0 % 50.0 %" in rows
    without_errors = tuple(record for record in records if record.end is not E)
    whole = final_table([EvaluationResult(name, without_errors) for name in names]).split("By task type")[0]
    assert "| 5 trained, with skills    |  67.0 % |  60.3 to 73.0 |    138 | 206 |   9.0 |\n" in whole
    headings = [word for row in rows if row.startswith("task type") for word in row.split()[2:]]
    assert headings == [str(number) for number in range(1, 11)]


def test_a_panel_that_mostly_failed_ends_a_run_with_an_error() -> None:
    check_errors([result("random", S, F), result("trained", S, E)])
    with pytest.raises(
        RunFailed, match=r"^2 of the 3 episodes of 'trained' ended by errors, so the table says nothing"
    ):
        check_errors([result("warm start", S, F, E), result("trained", S, E, E)])


def test_names_of_an_environment_are_neither_markup_nor_escapes() -> None:
    records = tuple(
        TaskRecord(f"task {kind}", kind, True, EndReason.SUCCESS, 1, 1.0, {"[b]em": 0.5})
        for kind in ("[/red]", ":smile:", "\x1b[31m", "a\u2028b")
    )
    text = final_table([EvaluationResult("trained", records)])
    assert {"[/red]", ":smile:", r"\x1b[31m", "[b]em"} <= {cell.strip() for cell in text.replace("\n", "|").split("|")}


def test_the_table_of_no_results_is_empty_and_not_an_error() -> None:
    assert "agent" in final_table([])


def test_a_row_can_be_called_after_its_agent() -> None:
    found = result("val", S, F)
    named = found.named("trained")
    assert (named.name, named.records, named.success_rate) == ("trained", found.records, 0.5)
