"""Promises of the episode browser without a browser: what is read, what is escaped, and what a page may hold."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest

from sdar.commands.front import main
from sdar.look.episodes import LONGEST_TEXT, Reading, read_episodes
from sdar.look.page import Page, episodes_page
from sdar.look.terminal import WIDTH, level, told
from toys.episodes import line, write_episodes

HOSTILE = '</script><script>alert(1)</script><!--<img src=x onerror="alert(2)">&lt;\u2028\x1b[2J\u202eevil\ud800\0'


def read(folder: Path, reading: Reading | None = None) -> list[Any]:
    return list(read_episodes(folder / "episodes.jsonl", reading or Reading()))


def page_of(lines: list[dict[str, Any]], folder: Path, **options: Any) -> Page:
    return episodes_page(read(write_episodes(folder, lines)), "run", **options)


def block(page: str, name: str) -> str:
    found = re.search(f'<script type="[a-z/]*" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]


def test_a_page_holds_what_was_recorded(tmp_path: Path) -> None:
    lines = [line(number) for number in range(6)]
    page = page_of(lines, tmp_path).html
    heads, texts = json.loads(block(page, "heads")), block(page, "texts").split("\n")
    reads = [json.loads(one) for one in block(page, "reads").split("\n")]
    assert [head[1] for head in heads] == [one["iteration"] for one in lines]
    assert [reads[head[0]] for head in heads] == [one["teacher_reads"] for one in lines]
    for one, text, figures in zip(lines, texts, block(page, "figures").split("\n"), strict=True):
        turns = json.loads(text)[2]
        assert [turn[1] for turn in turns] == [turn["text"] for turn in one["turns"]]
        for turn, (tokens, student, teacher, gates) in zip(one["turns"], json.loads(figures), strict=True):
            assert tokens == turn["tokens"]
            for values, name in ((student, "student"), (teacher, "teacher"), (gates, "gates")):
                assert [value / 1000 for value in values] == pytest.approx(turn[name])


def test_a_text_that_teachers_read_again_and_again_is_there_once(tmp_path: Path) -> None:
    page = page_of([line(n) | {"teacher_reads": "the very same advice"} for n in range(50)], tmp_path).html
    assert page.count("the very same advice") == 1


def test_hostile_texts_are_data(tmp_path: Path) -> None:
    plain = page_of([line()], tmp_path / "plain").html
    hostile = line()
    for name in ("task", "task_type", "description", "opening", "error", "teacher_reads", "last_observation"):
        hostile[name] = HOSTILE
    for turn in hostile["turns"]:
        turn |= dict.fromkeys(("observation", "text", "action"), HOSTILE) | {"tokens": [HOSTILE] * len(turn["tokens"])}
    hostile["group"][0]["actions"] = [HOSTILE]
    page = page_of([hostile], tmp_path / "hostile").html
    assert page.count("<") == plain.count("<")
    assert not set(page) & set("\x1b\u202e\u2028\0\ud800")
    assert "alert(1)" in page
    assert json.loads(block(page, "texts").split("\n")[0])[2][0][1].startswith("</script><script>alert(1)")


def test_a_name_that_is_markup_is_text(tmp_path: Path) -> None:
    page = episodes_page(read(write_episodes(tmp_path, [line()])), "<b>@figures@").html
    assert "<b>" not in page
    assert "<h1>&lt;b&gt;@figures@</h1>" in page


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page = page_of([line()], tmp_path).html
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)


def test_a_page_has_its_bound_and_says_what_is_missing(tmp_path: Path) -> None:
    lines = [line(number) for number in range(200)]
    whole = page_of(lines, tmp_path)
    assert (whole.episodes, whole.without_figures, whole.left_out) == (200, 0, 0)
    size = len(whole.html.encode())
    seen = []
    for most in (size - 100_000, 300_000, 220_000):
        page = page_of(lines, tmp_path, most=most)
        assert len(page.html.encode()) <= most
        about = json.loads(block(page.html, "about"))
        figures = block(page.html, "figures").split("\n")
        assert about["without_figures"] == page.without_figures == figures.count("")
        assert about["left_out"] == page.left_out == 200 - page.episodes
        # The oldest go first.
        assert not any(figures[: page.without_figures])
        assert json.loads(block(page.html, "heads"))[-1][1] == 99
        seen.append((page.without_figures > 0, page.left_out > 0))
    assert seen == [(True, False), (True, True), (True, True)]


def unpacked(page: str) -> tuple[list[str], list[str]]:
    """Texts and figures of all episodes, those in compressed blocks first."""
    texts: list[str] = []
    figures: list[str] = []
    for packed in filter(None, block(page, "packed").split("\n")):
        for lines, word in zip((texts, figures), packed.split(" "), strict=True):
            lines += zlib.decompress(base64.b64decode(word)).decode().split("\n")
    return texts + block(page, "texts").split("\n"), figures + block(page, "figures").split("\n")


def test_old_episodes_are_compressed_and_whole(tmp_path: Path) -> None:
    lines = [line(number) for number in range(200)]
    whole = page_of(lines, tmp_path)
    packed = page_of(lines, tmp_path, plain=20_000)
    assert unpacked(packed.html) == unpacked(whole.html)
    assert block(packed.html, "heads") == block(whole.html, "heads")
    blocks = json.loads(block(packed.html, "about"))["blocks"]
    assert max(blocks) <= 100
    assert 180 < sum(blocks) < 200
    assert len(packed.html) < len(whole.html) - 100_000
    assert packed[1:] == whole[1:]


def test_a_compressed_page_has_its_bound_too(tmp_path: Path) -> None:
    lines = [line(number) for number in range(400)]
    for most in (420_000, 330_000, 260_000, 215_000):
        page = page_of(lines, tmp_path, most=most, plain=20_000)
        assert len(page.html.encode()) <= most
        texts, figures = unpacked(page.html)
        assert len(texts) == len(figures) == page.episodes == 400 - page.left_out
        assert figures.count("") == page.without_figures
        assert [json.loads(text)[2][0][1] for text in texts] == [
            one["turns"][0]["text"] for one in lines[page.left_out :]
        ]
        assert not any(figures[: page.without_figures])
    assert page.left_out > 0


def test_a_very_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    (episode,) = read(write_episodes(tmp_path, [line() | {"last_observation": "x" * 1_000_000}]))
    assert len(episode.last_observation) < LONGEST_TEXT + 100
    assert "980,000 more characters" in episode.last_observation


@pytest.mark.parametrize(
    "damage",
    ['{"iteration": 3, "task": "tr', "[]", "{}", "nan", "\x00", "[" * 100_000, json.dumps(line() | {"turns": 5})],
)
def test_damaged_lines_are_passed_over_and_counted(damage: str, tmp_path: Path) -> None:
    file = write_episodes(tmp_path, [line(0), line(1)]) / "episodes.jsonl"
    file.write_text(file.read_text() + damage)
    reading = Reading()
    assert len(read(tmp_path, reading)) == 2
    assert reading.damaged == 1


def test_lines_of_older_runs_and_of_evaluations_are_read(tmp_path: Path) -> None:
    old = line(0)
    del old["group"]
    for turn in old["turns"]:
        del turn["student"], turn["teacher"], turn["gates"]
    judged = {"evaluation": "the student", **old}
    for name in ("iteration", "teacher_reads"):
        del judged[name]
    first, second = read(write_episodes(tmp_path, [old, judged]))
    assert (first.iteration, first.played_by, first.siblings, first.gap_range()) == (0, "", [], None)
    assert (second.iteration, second.played_by, second.reads) == (None, "the student", None)


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_episodes(tmp_path / "run", [line(number) for number in range(4)])
    assert main(["episodes", str(run)]) == 0
    assert "4 episodes in " in capsys.readouterr().out
    assert main(["episodes", str(run / "episodes.jsonl"), f"out={tmp_path / 'page.html'}"]) == 0
    assert (tmp_path / "page.html").read_bytes() == (run / "episodes.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "RUN must be"),
        (["."], "has no episodes.jsonl"),
        (["empty"], "must hold recorded episodes"),
        (["damaged"], "got 2 damaged lines"),
        (["pipe"], "must be a regular file, got a directory"),
        (["run", "to=page.html"], "must be out=FILE"),
        (["run", "out=run"], "out must be a file"),
        (["run", "--show", "9"], "--show must be the number of an episode in the list, got 9"),
        (["run", "--terminal", "--find", "no such words"], "no episode that fits"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_episodes(Path("run"), [line()])
    write_episodes(Path("empty"), [])
    (write_episodes(Path("damaged"), []) / "episodes.jsonl").write_text("a\nb\n")
    Path("pipe/episodes.jsonl").mkdir(parents=True)
    assert main(["episodes", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_terminal_lists_and_filters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(number) for number in range(8)]
    run = write_episodes(tmp_path, lines)
    filters: list[tuple[list[str], list[bool]]] = [
        ([], [True] * 8),
        (["--outcome", "error"], [one["end"].startswith("error") for one in lines]),
        (["--iteration", "2"], [one["iteration"] == 2 for one in lines]),
        (["--type", "pick_and_place"], [one["task_type"] == "pick_and_place" for one in lines]),
        (["--end", "turn_limit"], [one["end"] == "turn_limit" for one in lines]),
        (["--find", "MUG 3"], ["mug 3" in json.dumps(one) for one in lines]),
    ]
    for options, wanted in filters:
        assert main(["episodes", str(run), "--terminal", *options]) == 0
        shown = capsys.readouterr().out.splitlines()
        assert [int(row.split()[0]) for row in shown[1:]] == [n for n, yes in enumerate(wanted, 1) if yes]
        assert max(map(len, shown)) <= WIDTH


@pytest.mark.parametrize("colour", [False, True])
def test_an_episode_fits_into_80_columns(colour: bool, tmp_path: Path) -> None:
    hostile = line(2, tokens=60) | {"teacher_reads": "word " * 200, "error": "\x1b[31m" + "y" * 300}
    for name in ("tokens", "student", "teacher", "gates", "gaps"):
        hostile["turns"][1][name] = hostile["turns"][1][name][:30]
    (episode,) = read(write_episodes(tmp_path, [hostile]))
    text = "\n".join(told(episode, colour=colour))
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert max(map(len, plain.split("\n"))) <= WIDTH
    assert ("\x1b" in text) == colour
    assert "rejected: " in plain
    for turn in hostile["turns"]:
        assert re.sub(r"[> ]", "", turn["text"]) in re.sub(r"[\n> ]", "", plain)


@pytest.mark.parametrize(
    ("gap", "size"),
    [(None, 0), (0, 0), (9, 0), (-9, 0), (10, 1), (-10, -1), (100, 2), (-499, -2), (500, 3), (2000, 4), (-9999, -4)],
)
def test_colours_begin_where_the_legend_says(gap: int | None, size: int) -> None:
    assert level(gap) == size
