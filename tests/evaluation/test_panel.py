from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.errors import UserError
from sdar.evaluation.panel import assert_disjoint, default_split, make_panel
from toys.rollouts import CountingEnvironment

ENVIRONMENT = CountingEnvironment(num_tasks=31)


@given(size=st.integers(1, 31), seed=st.integers(0, 5))
def test_task_types_are_equally_frequent(size: int, seed: int) -> None:
    panel = make_panel(ENVIRONMENT, "valid", size, seed)
    assert len(set(panel.tasks)) == len(panel.tasks) == size
    counts = Counter(task.task_type for task in panel.tasks)
    assert panel.counts() == dict(sorted(counts.items()))
    assert max(counts.values()) - min(counts.get(name, 0) for name in ("alpha", "beta", "gamma")) <= 1


def test_a_type_that_runs_out_leaves_its_places_to_the_others() -> None:
    class Uneven(CountingEnvironment):
        def tasks(self, split: str):  # type: ignore[no-untyped-def]
            return [task for task in super().tasks(split) if task.task_type != "beta" or task.payload < 2]

    panel = make_panel(Uneven(num_tasks=12), "valid", 7, 0)
    assert panel.counts() == {"alpha": 3, "beta": 1, "gamma": 3}


@given(size=st.integers(1, 31), smaller=st.integers(1, 31))
def test_a_smaller_panel_is_the_beginning_of_a_larger_one(size: int, smaller: int) -> None:
    smaller = min(size, smaller)
    tasks = make_panel(ENVIRONMENT, "valid", size, 0).tasks
    assert make_panel(ENVIRONMENT, "valid", smaller, 0).tasks == tasks[:smaller]


def test_the_seed_chooses_and_the_order_of_the_tasks_of_other_types_does_not_matter() -> None:
    one, again, other = (make_panel(ENVIRONMENT, "valid", 9, seed) for seed in (0, 0, 1))
    assert one == again
    assert one.content_hash != other.content_hash


def test_the_hash_covers_the_content_and_not_the_order() -> None:
    class Changed(CountingEnvironment):
        def tasks(self, split: str):  # type: ignore[no-untyped-def]
            return [
                replace(task, content_hash="changed") if task.payload == 0 else task for task in super().tasks(split)
            ]

    whole = make_panel(ENVIRONMENT, "valid", 31, 0)
    assert make_panel(ENVIRONMENT, "valid", 31, 1).content_hash == whole.content_hash
    assert make_panel(Changed(num_tasks=31), "valid", 31, 0).content_hash != whole.content_hash


def test_shares_cover_the_panel_once() -> None:
    panel = make_panel(ENVIRONMENT, "valid", 10, 0)
    shared = [task for rank in range(3) for task in panel.share(rank, 3)]
    assert sorted(shared, key=lambda task: task.payload) == sorted(panel.tasks, key=lambda task: task.payload)


@pytest.mark.parametrize(
    ("split", "size", "words"),
    [
        ("valid", 32, "evaluation.panel_size must be <= 31, the number of tasks of the split 'valid', got 32"),
        ("valid", 0, "evaluation.panel_size must be >= 1, got 0"),
        ("test", 3, "evaluation.split must be 'train' or 'valid', got 'test'"),
    ],
)
def test_what_cannot_be_had_is_named(split: str, size: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_panel(ENVIRONMENT, split, size, 0)


@pytest.mark.parametrize(
    ("splits", "own", "expected"),
    [
        (("train", "valid"), None, "valid"),
        (("lessons", "exam"), None, "exam"),
        (("train", "dev", "test"), "test", "test"),
        (("train", "dev"), "test", "dev"),
        (("train", "dev", "test"), None, r"evaluation\.split must be 'dev' or 'test', got null"),
        (("train",), "test", r"evaluation\.split must be a split beside 'train', which is for training, got null"),
    ],
)
def test_the_default_split_is_the_environments_or_the_only_one(
    splits: tuple[str, ...], own: str | None, expected: str
) -> None:
    class Split(CountingEnvironment):
        default_split = own

        def splits(self) -> tuple[str, ...]:
            return splits

    if "got" in expected:
        with pytest.raises(UserError, match=expected):
            make_panel(Split(), None, 3, 0)
    else:
        assert default_split(Split()) == make_panel(Split(), None, 3, 0).split == expected


def test_a_panel_of_training_tasks_is_refused() -> None:
    assert_disjoint(make_panel(ENVIRONMENT, "valid", 6, 0), ENVIRONMENT.tasks("train"))
    with pytest.raises(UserError, match=r"evaluation.split .* got 'train': 6 of the panel's 6 tasks .*train-\d+"):
        assert_disjoint(make_panel(ENVIRONMENT, "train", 6, 0), ENVIRONMENT.tasks("train"))


def test_a_training_task_under_another_name_is_found() -> None:
    panel = make_panel(ENVIRONMENT, "valid", 6, 0)
    copy = replace(panel.tasks[2], task_id="renamed", split="train")
    with pytest.raises(UserError, match="1 of the panel's 6 tasks"):
        assert_disjoint(panel, [*ENVIRONMENT.tasks("train"), copy])
