"""The pictures of the documentation are what their scripts write, and hold nothing but text and shapes."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sdar.errors import USER_ERROR, UserError
from toys.episodes import line, write_episodes

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
HOSTILE = '"/></text><script>alert(1)</script><!-- --><image href="https://x.org"/>&lt;\x1b[2J\u202eevil\ud800\ufffe\0'
NAMESPACE = "http://www.w3.org/2000/svg"
SHAPES = {"svg", "title", "desc", "metadata", "style", "rect", "path", "text", "tspan"}


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its data classes look for their types
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def response() -> ModuleType:
    return script("picture_response")


def parsed(file: Path) -> ElementTree.Element:
    """The root of a picture that is SVG of plain shapes and refers to nothing."""
    text = file.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    elements = list(root.iter())
    assert {element.tag for element in elements} <= {f"{{{NAMESPACE}}}{name}" for name in SHAPES}
    names = {name for element in elements for name in element.attrib}
    assert not [name for name in names if name.endswith(("href", "src", "style")) or name.startswith("on")]
    styles = "".join(element.text or "" for element in elements if element.tag.endswith("style"))
    assert not re.search(r"url|@import|@font-face|https?:", styles)
    assert "prefers-color-scheme: dark" in styles
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()) for element in root.iter(f"{{{NAMESPACE}}}text")]


def drawn(response: ModuleType, folder: Path, lines: list[dict[str, Any]], *options: str) -> ElementTree.Element:
    out = folder / "out.svg"
    assert response.main([str(write_episodes(folder, lines)), str(out), *options]) == 0
    return parsed(out)


@pytest.mark.parametrize("file", sorted(IMAGES.glob("*.svg")), ids=lambda file: file.name)
def test_a_picture_fits_the_page_and_is_legible_on_a_phone(file: Path) -> None:
    root = parsed(file)
    assert float(root.attrib["width"]) <= 880
    sizes = [float(element.get("font-size", 15)) for element in root.iter(f"{{{NAMESPACE}}}text")]
    on_a_phone = 340 / float(root.attrib["width"])
    assert min(sizes) * on_a_phone > 7.5


def test_the_diagram_is_what_its_script_writes(tmp_path: Path) -> None:
    out = tmp_path / "iteration.svg"
    assert script("draw_iteration").main([str(out)]) == 0
    assert out.read_text(encoding="utf-8") == (IMAGES / "iteration.svg").read_text(encoding="utf-8")


def test_every_token_of_a_response_is_there_with_its_loud_gaps(response: ModuleType, tmp_path: Path) -> None:
    one = line(3)
    turn = one["turns"][1]
    turn |= {"student": [-3.0] * 20, "teacher": [-3.0] * 20}
    turn["teacher"][4], turn["teacher"][9] = -1.75, -3.5
    root = drawn(response, tmp_path, [line(0), one], "--episode", "2", "--turn", "2")
    told = texts(root)
    for token in turn["tokens"]:
        assert token.strip() in told
    assert [text for text in told if re.fullmatch(r"[+−]\d\.\d\d", text) and text not in ("+0.01", "−0.01")] == [
        "+1.25",
        "−0.50",
    ]
    assert any(one["description"] in text for text in told)
    fills = [element.get("class") for element in root.iter(f"{{{NAMESPACE}}}rect")]
    # Each colour once in the legend, and those of the two tokens once more.
    assert (fills.count("f-p3"), fills.count("f-n3"), fills.count("f-p4"), fills.count("f-n4")) == (2, 2, 1, 1)


def test_without_a_choice_it_is_the_most_coloured_response(response: ModuleType, tmp_path: Path) -> None:
    lines = [line(number, turns=2) for number in range(4)]
    for each in lines:
        for turn in each["turns"]:
            turn["teacher"] = list(turn["student"])
    lines[2]["turns"][1]["teacher"][5] -= 1.5
    told = texts(drawn(response, tmp_path, lines))
    assert any(text.startswith("turn 2 of 2") for text in told)
    assert lines[2]["description"] in told


def test_several_turns_and_a_quotation_can_be_shown(response: ModuleType, tmp_path: Path) -> None:
    options = ("--episode", "1", "--turn", "1", "3", "--reads", "usual places")
    told = texts(drawn(response, tmp_path, [line()], *options))
    assert [text[:6] for text in told if re.match(r"turn \d of 3", text)] == ["turn 1", "turn 3"]
    assert "... usual places ..." in told


def test_hostile_texts_are_text(response: ModuleType, tmp_path: Path) -> None:
    hostile = line() | dict.fromkeys(("task", "description", "teacher_reads", "end"), HOSTILE)
    for turn in hostile["turns"]:
        turn |= dict.fromkeys(("observation", "text", "action"), HOSTILE) | {"tokens": [HOSTILE] * 20}
    root = drawn(response, tmp_path, [hostile], "--reads", "alert(1)")
    told = "".join(texts(root))
    assert "<script>" in told
    assert "\\u202eevil" in told or "u202eevil" in told
    assert not set((tmp_path / "out.svg").read_text(encoding="utf-8")) & set("\x1b\u202e\ufffe\0")


def test_a_long_response_is_bounded(response: ModuleType, tmp_path: Path) -> None:
    one = line(turns=1, tokens=20)
    turn = one["turns"][0]
    for name in ("tokens", "student", "teacher", "gates", "gaps"):
        turn[name] = turn[name] * 150
    turn["tokens"][0], turn["tokens"][1], turn["tokens"][2] = "x" * 150, "\n\n", "漢字" * 20
    root = drawn(response, tmp_path, [one])
    assert float(root.attrib["height"]) < 2000
    assert any(text.endswith("more lines") for text in texts(root))
    for element in root.iter(f"{{{NAMESPACE}}}rect"):
        assert float(element.attrib["x"]) >= 0
        assert float(element.attrib["x"]) + float(element.attrib["width"]) <= 560


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--episode", "9"), "--episode"),
        (("--episode", "1", "--turn", "7"), "--episode 1 --turn 7"),
        (("--episode", "1", "--turn", "1", "7"), "--turn"),
        (("--reads", "what nobody wrote"), "--reads"),
    ],
)
def test_what_is_not_there_is_said(
    response: ModuleType, options: tuple[str, ...], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.svg"
    assert response.main([str(write_episodes(tmp_path, [line()])), str(out), *options]) == USER_ERROR
    assert word in capsys.readouterr().err
    assert not out.exists()


def test_a_run_without_gaps_is_said(response: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = json.loads(json.dumps(line()))
    for turn in one["turns"]:
        for name in ("tokens", "student", "teacher", "gates", "gaps"):
            del turn[name]
    assert response.main([str(write_episodes(tmp_path, [one])), str(tmp_path / "out.svg")]) == USER_ERROR
    assert "recorded gaps" in capsys.readouterr().err


@pytest.fixture(scope="module")
def learning_curve() -> ModuleType:
    return script("picture_learning_curve")


def test_the_learning_curve_is_what_its_figures_give(
    learning_curve: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "curve.svg"
    assert learning_curve.main(["docs/data/learning_curve.json", str(out)]) == 0
    written = out.read_text(encoding="utf-8").replace(str(out), "docs/images/learning_curve.svg")
    assert written == (IMAGES / "learning_curve.svg").read_text(encoding="utf-8")


def comparison(folder: Path, solved: dict[tuple[str, int], tuple[int, int]]) -> Path:
    """(Method, seed) -> solved of 100 before training and after 4 iterations, alone; with skills always 50."""

    def points(ends: tuple[int, int]) -> list[dict[str, Any]]:
        return [
            {"iterations": step, "seconds": 0.0, "name": name, "n": 100, "successes": count}
            for step, alone in zip((0, 4), ends, strict=True)
            for name, count in (("val", alone), ("val_with_skills", 50))
        ]

    runs = [{"method": method, "seed": seed, "curve": points(ends)} for (method, seed), ends in solved.items()]
    record = {"command": ["sdar", "compare", "logs_dir=/home/me"], "git": {"revision": "0123456789"}, "runs": runs}
    (folder / "comparison.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_a_learning_curve_has_means_and_bands_over_seeds(learning_curve: ModuleType, tmp_path: Path) -> None:
    solved = {(method, seed): (10, 20 + 10 * seed) for method in ("a", HOSTILE) for seed in range(3)}
    figures, out = tmp_path / "few.json", tmp_path / "out.svg"
    assert learning_curve.main([str(comparison(tmp_path, solved)), str(out), "--data", str(figures)]) == 0
    root = parsed(out)
    paths = list(root.iter(f"{{{NAMESPACE}}}path"))
    bands = [one.attrib["d"] for one in paths if one.get("opacity")]
    assert len(bands) == 4
    # the axis goes up to 60 %, 300 pixels: 20, 30 and 40 are 30 +- 4.302653 * 10 / sqrt(3)
    low, high = (384 - 300 * value / 60 for value in (30 - 24.841, 30 + 24.841))
    assert f"620 {high:.1f}" in bands[0]
    assert f"620 {low:.1f}" in bands[0]
    assert "58 334L620 234" in [one.attrib["d"].lstrip("M") for one in paths]
    assert "/home/me" not in out.read_text(encoding="utf-8") + figures.read_text(encoding="utf-8")
    again = tmp_path / "again.svg"
    assert learning_curve.main([str(figures), str(again)]) == 0
    shape = "d"
    assert [one.get(shape) for one in parsed(again).iter(f"{{{NAMESPACE}}}path")] == [one.get(shape) for one in paths]


@pytest.mark.parametrize("content", ["{}", "[]", '{"runs": 3, "command": []}', "no JSON"])
def test_what_is_no_comparison_is_said(
    learning_curve: ModuleType, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "comparison.json"
    file.write_text(content, encoding="utf-8")
    assert learning_curve.main([str(file), str(tmp_path / "out.svg")]) == USER_ERROR
    assert str(file) in capsys.readouterr().err
    assert not (tmp_path / "out.svg").exists()


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    return script("picture_claims")


SERIES = ["claims", "sizes", "teachers", "default", "pretrained"]


@pytest.mark.parametrize("series", SERIES)
def test_the_picture_of_a_series_is_what_its_figures_give(series: str, claims: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / f"{series}.svg"
    assert claims.main([str(out), "--series", series]) == 0
    written = out.read_text(encoding="utf-8").replace(str(out), f"docs/images/map_{series}.svg")
    assert written == (IMAGES / f"map_{series}.svg").read_text(encoding="utf-8")


def test_the_short_picture_has_the_methods_of_the_readme(claims: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "brief.svg"
    assert claims.main([str(out), "--series", "claims", "teachers", "default", "--brief"]) == 0
    written = out.read_text(encoding="utf-8").replace(str(out), "docs/images/map_claims_brief.svg")
    assert written == (IMAGES / "map_claims_brief.svg").read_text(encoding="utf-8")
    named = {one.split("  ")[0] for one in texts(parsed(out))}
    assert named & {words for words, _ in claims.ROWS.values()} == {claims.ROWS[method][0] for method in claims.BRIEF}


def test_rows_of_several_series_stand_in_one_panel(claims: ModuleType) -> None:
    found, called = claims.together(["claims", "teachers"])
    assert list(called) == list(claims.PANELS["claims"])
    assert len({outcome.cell for outcome in found}) == len(found)
    rows = claims.rows_of([outcome for outcome in found if outcome.cell.regime == "turns8"])
    assert {("sdar", 0.1), ("sdar", 1), ("sdar_ema", 1)} <= rows.keys()
    assert {len(runs) for runs in rows.values()} == {10}


def test_headings_are_those_of_the_series_named_first(claims: ModuleType) -> None:
    _, called = claims.together(["default", "teachers", "claims"])
    assert list(called) == list(dict.fromkeys([*claims.PANELS["default"], *claims.PANELS["claims"]]))
    assert called["turns14"] == claims.PANELS["default"]["turns14"]


def test_series_of_other_seeds_have_no_common_panel(
    claims: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.svg"
    assert claims.main([str(out), "--series", "claims", "sizes"]) != 0
    told = "--series must have the same seeds in arithmetic_stale, got claims sizes"
    assert told in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("series", SERIES)
def test_every_cell_of_a_statement_has_a_row(series: str, claims: ModuleType, tmp_path: Path) -> None:
    assert set(claims.PANELS) == set(SERIES)
    outcomes = claims.complete(claims.read(series), series)
    out = tmp_path / "out.svg"
    assert claims.main([str(out), "--series", series]) == 0
    told = texts(parsed(out))
    for statement in claims.statements(claims.PLAN["series"][series]):
        assert statement.regime in claims.PANELS[series]
        rows = claims.rows_of([o for o in outcomes if o.cell.regime == statement.regime])
        for of in filter(None, (statement.of, statement.against) if rows else ()):
            method, _, number = of.partition(" ")
            coefficient = float(number) if number else None
            assert len(rows[method, coefficient]) == len(claims.PLAN["series"][series]["seeds"])
            assert claims.ROWS[method][0] + claims.strength(coefficient) in told


def test_a_row_of_the_claims_has_its_runs_mean_and_paired_difference(claims: ModuleType, tmp_path: Path) -> None:
    made = [
        claims.Outcome(claims.Cell("webshop", method, strength, seed), 0.1, 0.8, rate, None, 120, "abc", 1.0)
        for method, strength, rates in (("grpo", None, (0.2, 0.4)), ("sdar", 0.1, (0.3, 0.5)))
        for seed, rate in enumerate(rates)
    ]
    out = tmp_path / "out.svg"
    out.write_text(claims.drawing(made, "out.svg"), encoding="utf-8")
    root = parsed(out)
    assert "WebShop: GRPO 30.0 %, SDAR (\N{GREEK SMALL LETTER LAMDA} 0.1) 40.0 %." in "".join(root.itertext())
    said = texts(root)
    assert "SDAR  \N{GREEK SMALL LETTER LAMDA} 0.1" in said
    assert "+10.0  10.0 to 10.0" in said
    paths = [one.attrib["d"] for one in root.iter(f"{{{NAMESPACE}}}path")]
    left, width = claims.LEFT, claims.WIDTH - claims.LEFT - claims.RIGHT
    for rate in (0.2, 0.4, 0.3, 0.5):
        assert sum(path.startswith(f"M{left + rate * width - 4:g} ") for path in paths) == 1


def diamonds(root: ElementTree.Element) -> list[str]:
    """Where the hollow marks are."""
    paths = [one.attrib for one in root.iter(f"{{{NAMESPACE}}}path")]
    return [path["d"].split()[0] for path in paths if "f-back" in path["class"] and "s-" in path["class"]]


def test_a_row_has_a_hollow_mark_at_its_mean_with_skills(claims: ModuleType, tmp_path: Path) -> None:
    made = [
        claims.Outcome(claims.Cell("webshop", method, None, seed), 0.1, 0.8, 0.3, skilled, 120, "abc", 1.0)
        for method, rates in (("grpo", (0.7, 0.9)), ("skill_grpo", (None, None)))
        for seed, skilled in enumerate(rates)
    ]
    out = tmp_path / "out.svg"
    out.write_text(claims.drawing(made, "out.svg"), encoding="utf-8")
    root = parsed(out)
    assert diamonds(root) == [f"M{claims.LEFT + 0.8 * (claims.WIDTH - claims.LEFT - claims.RIGHT):g}"]
    assert any(text.startswith("Hollow: means with skills") for text in texts(root))
    assert "WebShop: GRPO 30.0 % (80.0 % with skills), Skill-GRPO 30.0 %." in "".join(root.itertext())
    out.write_text(claims.drawing(made[2:], "out.svg"), encoding="utf-8")
    root = parsed(out)
    assert diamonds(root) == []
    assert not any("Hollow" in text for text in texts(root))


def test_statements_about_the_strongly_gated_share_have_a_panel(claims: ModuleType, tmp_path: Path) -> None:
    ends = [(0.50, 0.56), (0.52, 0.60)]
    made = [
        claims.Outcome(
            claims.Cell("webshop", "sdar", 1, seed),
            0.1,
            0.8,
            0.3,
            None,
            120,
            "abc",
            1.0,
            1.0,
            {claims.SHARE: [*pair, 0.7]},
        )
        for seed, pair in enumerate(ends)
    ]
    planned = [claims.Statement("it rises", regime, "sdar 1", figure=claims.SHARE) for regime in ("webshop", "turns8")]
    out = tmp_path / "out.svg"
    out.write_text(claims.drawing(made, "out.svg", shares=planned), encoding="utf-8")
    root = parsed(out)
    assert "WebShop, strongly gated share: 51.0 to 58.0 %." in "".join(root.itertext())  # turns8 has not been played
    said = texts(root)
    assert said.count("Strongly gated share, first to last iterations") == 1
    assert "SDAR  \N{GREEK SMALL LETTER LAMDA} 1  +7.0 points" in said
    assert [text for text in said if text in ("45 %", "50 %", "55 %", "60 %", "65 %")] == [
        "50 %",
        "50 %",
        "55 %",
        "60 %",
    ]
    lines = [one.attrib["d"] for one in root.iter(f"{{{NAMESPACE}}}path") if "L" in one.attrib["d"]]
    assert len(lines) == len(ends) + 1


def test_a_method_without_a_row_is_refused(claims: ModuleType) -> None:
    stranger = claims.Outcome(claims.Cell("webshop", "opsd", 1, 401), 0.1, 0.8, 0.5, None, 120, "abc", 1.0)
    with pytest.raises(UserError, match=r"must be of grpo, sdar, .*, got opsd"):
        claims.drawing([stranger], "out.svg")


def test_a_regime_of_which_a_run_is_missing_is_left_out(claims: ModuleType) -> None:
    every = [claims.Outcome(cell, 0.1, 0.8, 0.5, None, 120, "abc", 1.0) for cell in claims.cells("claims")]
    missing = next(o for o in every if o.cell.regime == "webshop")
    kept = claims.complete([o for o in every if o is not missing], "claims")
    assert {o.cell.regime for o in every} - {o.cell.regime for o in kept} == {"webshop"}
    assert claims.complete(every, "claims") == every


def test_a_series_without_runs_is_said(claims: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(claims, "read", lambda series: [])
    assert claims.main([str(tmp_path / "out.svg")]) == USER_ERROR
    assert "--series must be one whose runs were collected, got claims" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pretrained() -> ModuleType:
    return script("picture_pretrained")


def test_the_curves_of_the_pretrained_model_are_what_its_figures_give(pretrained: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "curves.svg"
    assert pretrained.main([str(out)]) == 0
    written = out.read_text(encoding="utf-8").replace(str(out), "docs/images/map_pretrained_curves.svg")
    assert written == (IMAGES / "map_pretrained_curves.svg").read_text(encoding="utf-8")


def learned(pretrained: ModuleType, method: str, seed: int, *rates: float) -> Any:
    cell = pretrained.Cell("arithmetic_smollm2", method, None if method == "grpo" else 0.1, seed)
    return pretrained.Outcome(cell, 0.1, None, 0.5, None, 90, "abc", 1.0, success_curve=list(rates))


def test_a_method_of_the_pretrained_model_has_a_line_per_run_and_one_of_means(
    pretrained: ModuleType, tmp_path: Path
) -> None:
    made = [learned(pretrained, method, seed, 0.1, 0.2 + 0.1 * seed) for method in ("grpo", "sdar") for seed in (0, 1)]
    out = tmp_path / "out.svg"
    out.write_text(pretrained.drawing(made, "out.svg"), encoding="utf-8")
    root = parsed(out)
    paths = [one.attrib for one in root.iter(f"{{{NAMESPACE}}}path") if "L" in one.attrib["d"]]
    assert [path.get("opacity") for path in paths] == ["0.4"] * 4 + [None] * 2
    right = pretrained.WIDTH - pretrained.RIGHT

    def y(rate: float) -> float:  # the axis goes up to 30 %
        return round(pretrained.TOP + pretrained.HEIGHT * (1 - rate / 0.3), 1)

    ends = [f"M{pretrained.LEFT} {y(0.1):g}L{right} {y(rate):g}" for rate in (0.2, 0.3, 0.25)]
    assert [path["d"] for path in paths] == [*ends[:2], *ends[:2], ends[2], ends[2]]
    assert "GRPO: 10.0 to 25.0 %, SDAR: 10.0 to 25.0 %." in "".join(root.itertext())
    assert {"GRPO", "SDAR  \N{GREEK SMALL LETTER LAMDA} 0.1", "0", "1", "30 %"} <= set(texts(root))


@pytest.mark.parametrize(("lengths", "told"), [((), "no run"), ((2, 0), "0, 2"), ((0, 0), "0"), ((2, 3), "2, 3")])
def test_runs_without_their_whole_curves_are_refused(
    lengths: tuple[int, ...], told: str, pretrained: ModuleType, tmp_path: Path, monkeypatch, capsys
) -> None:
    made = [learned(pretrained, "grpo", seed, *[0.1] * length) for seed, length in enumerate(lengths)]
    monkeypatch.setattr(pretrained, "read", lambda series: made)
    assert pretrained.main([str(tmp_path / "out.svg")]) == USER_ERROR
    assert f"must have curves of the same length in docs/data, got lengths of {told}\n" in capsys.readouterr().err
    assert not (tmp_path / "out.svg").exists()


@pytest.fixture(scope="module")
def the_map() -> ModuleType:
    return script("picture_map")


def placed(the_map: ModuleType, outcomes: list[Any]) -> tuple[dict[Any, tuple[str, bool]], list[tuple[float, ...]]]:
    """What stands in the box of each cell and whether it is outlined, and left, top, right and bottom of all boxes."""
    root = ElementTree.fromstring(the_map.drawing(outcomes, "out.svg"))
    regimes = [regime for regime in the_map.CALLED if any(o.cell.regime == regime for o in outcomes)]
    methods = {words: method for method, words in the_map.LABELS.items()}
    found, places, band, method = {}, [], -1, ""
    for element, after in pairwise(list(root)[5:]):  # behind the words about it, the styles and the ground
        if element.tag.endswith("text") and float(element.attrib["x"]) == the_map.LEFT:
            words = "".join(element.itertext())
            band, method = band + (words == "coefficient"), methods.get(words, "")
        elif element.tag.endswith("rect"):
            x, y, width, height = (float(element.attrib[name]) for name in ("x", "y", "width", "height"))
            places.append((x, y, x + width, y + height))
            outlined = "s-ink" in element.attrib["class"].split()
            assert outlined == (after.get("font-weight") == "600")
            assert float(after.attrib["textLength"]) < width - 2
            if method:
                second, left = divmod(x - the_map.LEFT - the_map.LABEL, 6 * the_map.CELL + the_map.GAP)
                coefficient = the_map.COLUMNS[int(left // the_map.CELL)] if width < 2 * the_map.CELL else None
                cell = (regimes[2 * band + int(second)], method, coefficient)
                assert cell not in found
                found[cell] = ("".join(after.itertext()), outlined)
    return found, places


def test_the_picture_of_the_screen_is_what_its_figures_give(the_map: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "screen.svg"
    assert the_map.main([str(out)]) == 0
    written = out.read_text(encoding="utf-8").replace(str(out), "docs/images/map_screen.svg")
    assert written == (IMAGES / "map_screen.svg").read_text(encoding="utf-8")


def test_every_cell_of_the_screen_is_in_its_picture_and_outlined_where_its_interval_excludes_0(
    the_map: ModuleType,
) -> None:
    outcomes = the_map.read("screen")
    expected = {}
    for row in the_map.rows(outcomes):
        if row.method != "grpo":
            low, high = row.difference.interval
            words = f"{row.difference.mean:+.0f}".replace("-", "−")
            words = "0" if words in ("+0", "−0") else words
            expected[row.regime, row.method, row.coefficient] = (words, not low <= 0 <= high)
    found, _ = placed(the_map, outcomes)
    assert found == expected
    assert {outlined for _, outlined in found.values()} == {False, True}


def test_every_planned_cell_of_the_screen_can_be_drawn_and_no_box_meets_another(the_map: ModuleType) -> None:
    planned = the_map.cells("screen")
    made = [
        the_map.Outcome(cell, 0.1, 0.8, (17 * number % 101) / 100, None, 120, "abc", 1.0)
        for number, cell in enumerate(planned)
    ]
    found, boxes = placed(the_map, made)
    assert found.keys() == {(c.regime, c.method, c.coefficient) for c in planned if c.method != "grpo"}
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert the_map.LEFT <= left < right <= the_map.WIDTH - the_map.LEFT
        for other in boxes[:number]:
            assert right < other[0] or other[2] < left or bottom < other[1] or other[3] < top


def screened(
    the_map: ModuleType, *rates: float, method: str = "grpo", regime: str = "turns8", strength: float | None = 1
) -> list[Any]:
    """Runs of a cell on seeds 0, 1, ..."""
    cells = [the_map.Cell(regime, method, None if method == "grpo" else strength, seed) for seed in range(len(rates))]
    return [the_map.Outcome(c, 0.1, 0.4, rate, None, 120, "a", 1.0) for c, rate in zip(cells, rates, strict=True)]


def test_a_panel_of_the_map_says_where_it_starts_and_what_grpo_reaches(the_map: ModuleType, tmp_path: Path) -> None:
    made = screened(the_map, 0.2, 0.3, 0.4)
    made += screened(the_map, 0.3, 0.4, 0.5, method="sdar")
    made += screened(the_map, 0.1, 0.3, method="skill_grpo", strength=None)
    out = tmp_path / "out.svg"
    out.write_text(the_map.drawing(made, "out.svg"), encoding="utf-8")
    root = parsed(out)
    told = texts(root)
    assert {"ALFWorld", "8 turns", "10.0 % / 40.0 %", "30.0 %", "SDAR", "Skill-GRPO"} <= set(told)
    assert any("over 2 to 3 pairs" in text for text in told)
    heard = "from 10.0 % / 40.0 %, GRPO 30.0 %: SDAR +10  \N{GREEK SMALL LETTER LAMDA} 1 (clear); Skill-GRPO −5."
    assert heard in "".join(root.itertext())


@pytest.mark.parametrize(
    ("value", "colour"), [(0, "panel"), (-2, "panel"), (3, "p1"), (-8, "n2"), (29, "p3"), (-99, "n4")]
)
def test_the_colour_of_a_box_is_that_of_the_points_that_stand_in_it(
    value: int, colour: str, the_map: ModuleType
) -> None:
    assert the_map.Box(value).colour == colour


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"method": "opsd"}, r"methods of the map must be of grpo, sdar, .*, got opsd"),
        ({"regime": "turns9"}, r"regimes of the map must be of turns8, .*, got turns9"),
        ({"strength": 2}, r"coefficients of the map must be of None, 0.01, .*, got 2"),
    ],
)
def test_a_cell_without_a_place_in_the_map_is_refused(other: dict[str, Any], told: str, the_map: ModuleType) -> None:
    made = [*screened(the_map, 0.2), *screened(the_map, 0.3, **{"method": "sdar"} | other)]
    with pytest.raises(UserError, match=told):
        the_map.drawing(made, "out.svg")


def test_a_method_of_the_map_is_called_as_in_the_claims_and_says_what_its_columns_are(the_map: ModuleType) -> None:
    shown = [method for group in the_map.GROUPS.values() for method in group]
    assert len(set(shown)) == len(shown) == len({the_map.LABELS[method] for method in shown})
    assert {method: the_map.LABELS[method] for method in the_map.ROWS} == {m: w for m, (w, _) in the_map.ROWS.items()}
    own = {method for method in shown if "COEFFICIENT" in the_map.PLAN["methods"][method]}
    assert {method for method in shown if the_map.LABELS[method].endswith((" (target)", " (weight)"))} == own


def test_a_screen_without_runs_is_said(the_map: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(the_map, "read", lambda series: [])
    assert the_map.main([str(tmp_path / "out.svg")]) == USER_ERROR
    assert "runs of screen must be in docs/data beside those of grpo, got none" in capsys.readouterr().err
    assert not (tmp_path / "out.svg").exists()
