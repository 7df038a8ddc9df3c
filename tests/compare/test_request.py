from __future__ import annotations

import pytest

from sdar.compare.request import read_request
from sdar.errors import UserError


def test_seeds_are_the_pairs_and_the_rest_of_the_sweep_makes_the_methods() -> None:
    request = read_request(["algorithm=grpo,sdar", "seed=0..2", "threads=1"])
    assert request.methods == (("algorithm=grpo",), ("algorithm=sdar",))
    assert request.seeds == (0, 1, 2)
    assert request.overrides(1, 2) == ("threads=1", "algorithm=sdar", "seed=2")


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("seed=0..4", (0, 1, 2, 3, 4)),
        ("seed=1,2,3", (1, 2, 3)),
        ("seed=0..2,7", (0, 1, 2, 7)),
        ("seed=3..3,1", (3, 1)),
        ("seed=range(2,5)", (2, 3, 4)),
    ],
)
def test_ranges_include_both_ends(text: str, seeds: tuple[int, ...]) -> None:
    assert read_request([text]).seeds == seeds


def test_several_swept_settings_make_a_method_of_every_combination() -> None:
    request = read_request(["algorithm=grpo,sdar", "gate.beta=1,2", "seed=5"])
    assert request.methods == (
        ("algorithm=grpo", "gate.beta=1"),
        ("algorithm=grpo", "gate.beta=2"),
        ("algorithm=sdar", "gate.beta=1"),
        ("algorithm=sdar", "gate.beta=2"),
    )
    assert request.seeds == (5,)


def test_dots_that_are_no_range_stay() -> None:
    request = read_request(["model.path=../models/a", "seed=1,2", "environment.data_dir=a..b"])
    assert request.fixed == ("model.path=../models/a", "environment.data_dir=a..b")


def test_launcher_settings_are_kept_apart() -> None:
    request = read_request(["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.verbose=1", "jobs=3"])
    assert (request.launcher, request.launcher_overrides, request.jobs) == ("joblib", ("hydra.launcher.verbose=1",), 3)
    assert request.fixed == ()


@pytest.mark.parametrize(
    ("arguments", "mentioned"),
    [
        (["algorithm=sdar"], "nothing to compare"),
        (["algorithm=sdar", "seed=3"], "nothing to compare"),
        (["seed=3..3"], "nothing to compare"),
        (["seed=1,2,1"], "1 occurs twice"),
        (["seed=0..3,2"], "2 occurs twice"),
        (["seed=4..0"], "4..0 is empty"),
        (["seed=1,2", "seed=3"], "given twice"),
        (["seed=-1,2"], "seed must be a whole number >= 0"),
        (["seed=a,b"], "seed must be a whole number >= 0"),
        (["algorithm=grpo,grpo"], "algorithm=grpo occurs twice"),
        (["seed=1,2", "run_dir=x"], "run_dir"),
        (["seed=1,2", "ckpt_path=last"], "ckpt_path"),
        (["seed=1,2", "train=false"], "train"),
        (["seed=1,2", "threads=1,2"], "threads must have one value"),
        (["seed=1,2", "logs_dir=a,b"], "logs_dir must have one value"),
        (["seed=1,2", "jobs=0"], "jobs must be a whole number >= 1, got 0"),
        (["seed=1,2", "jobs=two"], "jobs must be a whole number >= 1, got two"),
        (["seed=1,2", "jobs=1,2"], "jobs must have one value"),
        (["seed=1,2", "hydra/launcher=basic,joblib"], "hydra/launcher must have one value"),
        (["seed=1,2", "hydra.sweep.dir=x"], "hydra.launcher.*"),
        (["seed=1,2", "hydra/sweeper=x"], "hydra/launcher"),
        (["gate.beta=interval(1,2)"], "no intervals"),
        (["seed=1,2", "nonsense"], "nonsense"),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence(arguments: list[str], mentioned: str) -> None:
    with pytest.raises(UserError) as caught:
        read_request(arguments)
    assert mentioned in str(caught.value)
    assert "\n" not in str(caught.value)
