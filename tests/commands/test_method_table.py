"""The files of ``configs/algorithm`` side by side are the table of docs/methods.md."""

from pathlib import Path

import pytest

from sdar.commands.method_table import main, table, with_table

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_table_in_the_documentation_is_that_of_the_files():
    text = DOCS.read_text(encoding="utf-8")
    assert with_table(text) == text, "renew it: python -m sdar.config.method_table docs/methods.md"


def test_the_table_says_what_sets_the_methods_apart():
    """Rows of the specification's table of baselines."""
    rows = {line.split("|")[1].strip().strip("`"): line for line in table().splitlines()[2:]}
    for method, facts in {
        "sdar": ["| 0.01 | `sampled` | `gap`, beta 5 | skill, `old` |", "plain"],
        "grpo": ["| 0 | - | - | not scored |"],
        "skill_grpo": ["| 0 | - | - | not scored |", "| skills |"],
        "skill_prompt": ["| no | - | - | 0 |", "skills (evaluated only)"],
        "skill_sd": ["| 0.001 | `skill_sd` | `none` | skill, `old` |"],
        "rlsd": ["weight 0.5, then down to 0 | 0 |"],
        "agent_opsd": ["clip 0.2/0.2", "weight 0.5 | 0 |"],
        "gigpo": ["A_E + w A_S"],
        "dr_grpo": ["| R - mean |", "over a constant length"],
    }.items():
        for fact in facts:
            assert fact in rows[method]


def test_a_page_without_a_place_for_the_table_is_told_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    assert main([str(page)]) == 2
    page.write_text("nothing")
    assert main([str(page)]) == 2
    assert "the text must contain <!-- begin" in capsys.readouterr().err
    assert page.read_text() == "nothing"
