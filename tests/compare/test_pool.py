"""Comparisons of several warm starts in one table: every pair counts once; what does not belong together is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sdar.compare.pool import main, read_pool, report
from sdar.errors import UserError

METHODS = ("experiment=r/grpo", "experiment=r/ucb")
# warm start -> before; method -> after, by seed
FIRST = {"before": 0.2, METHODS[0]: {0: 0.4, 1: 0.5}, METHODS[1]: {0: 0.45, 1: 0.49}}
SECOND = {"before": 0.3, METHODS[0]: {0: 0.5}, METHODS[1]: {0: 0.58}}


def comparison(folder: Path, warm_start: str, rates: dict[str, Any], **changes: Any) -> Path:
    """The record of a comparison, with only what a pool reads."""

    def figure(rate: float) -> dict[str, float]:
        return {"success_rate": rate}

    runs = [
        {
            "method": method,
            "seed": seed,
            "initial_weights": warm_start,
            "panel": "panel-of-all",
            "iterations": 12,
            "seconds": 90.0 if method == METHODS[0] else 120.0,
            "figures": {
                "warm start": figure(rates["before"]),
                "trained": figure(after),
                "trained, with skills": figure(0.75),
            },
            **changes,
        }
        for method in METHODS
        for seed, after in rates[method].items()
    ]
    folder.mkdir(parents=True)
    seeds = list(rates[METHODS[0]])
    record = {"baseline": METHODS[0], "methods": list(METHODS), "seeds": seeds, "runs": runs}
    (folder / "comparison.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [comparison(tmp_path / "a", "warm-a", FIRST), comparison(tmp_path / "b", "warm-b", SECOND)]


def test_every_pair_counts_once(folders: list[Path]) -> None:
    pool = read_pool(folders)
    assert pool.pairs == (("warm-a", 0), ("warm-a", 1), ("warm-b", 0))
    assert pool.differences(METHODS[1]).values == pytest.approx([0.05, -0.01, 0.08])
    assert pool.differences(METHODS[1], "warm-a").values == pytest.approx([0.05, -0.01])
    assert pool.differences(METHODS[0]).values == (0, 0, 0)


def test_the_table_holds_means_and_intervals_by_hand(folders: list[Path]) -> None:
    text = report(read_pool(folders))
    mean = 4.0
    deviation = math.sqrt((1**2 + 5**2 + 4**2) / 2)
    half = 4.302653 * deviation / math.sqrt(3)  # Student's t, 2 degrees of freedom
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {METHODS[1]}") and "to" in line]
    assert f"{mean:+.1f}" in row
    assert f"{mean - half:+.1f} to {mean + half:+.1f}" in row
    assert "+27.3" in row  # the rise: 25, 29 and 28 points
    assert row.split("|")[-3:-1] == ["        75.0 ", "     2.0 "]
    assert "3 pairs from 2 warm starts" in text
    (by_start,) = [line for line in text.splitlines() if line.startswith(f"| {METHODS[1]}") and "to" not in line]
    assert by_start.split() == ["|", METHODS[1], "|", "+2.0", "|", "+8.0", "|"]


def test_one_comparison_alone_has_no_second_table(folders: list[Path]) -> None:
    text = report(read_pool(folders[:1]))
    assert "2 pairs from 1 warm start:" in text
    assert "by warm start" not in text


def test_a_record_may_be_named_instead_of_its_folder(folders: list[Path]) -> None:
    assert read_pool([folders[0] / "comparison.json"]) == read_pool(folders[:1])


def test_what_does_not_belong_together_is_refused(folders: list[Path], tmp_path: Path) -> None:
    other = comparison(tmp_path / "c", "warm-c", SECOND, panel="another")
    with pytest.raises(UserError, match=r"c has another panel than .*, another instead of panel-of-all"):
        read_pool([folders[0], other])
    longer = comparison(tmp_path / "d", "warm-d", SECOND, iterations=40)
    with pytest.raises(UserError, match=r"another number of iterations than .*, 40 instead of 12"):
        read_pool([folders[0], longer])
    with pytest.raises(UserError, match="seed 0 of warm start warm-a is in another comparison as well"):
        read_pool([folders[0], folders[0] / "comparison.json"])


def test_an_unfinished_comparison_is_refused(folders: list[Path]) -> None:
    path = folders[0] / "comparison.json"
    record = json.loads(path.read_text())
    record["runs"].pop()
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="some runs are not finished"):
        read_pool(folders)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": 3}'])
def test_a_file_that_is_no_comparison_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text(text)
    with pytest.raises(UserError, match="is not the record of a comparison"):
        read_pool([tmp_path])


def test_mistakes_are_one_sentence_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing")]) == 2
    assert main(["picture=out.docx", str(tmp_path)]) == 2
    assert main(["picture=out.png"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(line.startswith("error: ") for line in errors)


def test_the_picture_is_drawn(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "new" / "pool.png"
    assert main([*map(str, folders), f"picture={picture}"]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "3 pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [{"seed": "x"}, {"seed": 1.5}, {"method": "other"}, {"method": [1]}, {"initial_weights": None}, {"panel": [1]},
     {"iterations": "x"}, {"seconds": float("nan")}, {"seconds": -1}, {"figures": 3}, {"figures": {"trained": 3}},
     {"figures": {"trained": {"success_rate": float("nan")}}}, {"figures": {"trained": {"success_rate": 1.5}}}],
)  # fmt: skip
def test_a_record_of_another_shape_is_told_in_one_sentence(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = comparison(tmp_path / "a", "warm-a", FIRST, **change)
    with pytest.raises(UserError, match=r"^[^\n]*json is not the record of a comparison, or cannot be read$"):
        read_pool([folder])
