"""Text analysis, against what Lucene 9.5 made of the same texts (golden/, written by scripts/LuceneReference.java)."""

from __future__ import annotations

import json
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar.environments.lucene.analysis import EnglishAnalyzer
from sdar.environments.lucene.porter import stem
from sdar.environments.lucene.words import LONGEST, words

RECORDED = [json.loads(line) for line in (Path(__file__).parent / "golden" / "analysis.jsonl").open(encoding="utf-8")]


def terms(text: str) -> list[str]:
    return EnglishAnalyzer().terms(text)


def test_texts_have_the_terms_that_lucene_gives_them() -> None:
    analyzer = EnglishAnalyzer()
    wrong = [(text, expected, found) for text, expected in RECORDED if (found := analyzer.terms(text)) != expected]
    assert not wrong, ascii(wrong[:3])
    assert len(RECORDED) > 600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Women's running shoes", ["women", "run", "shoe"]),
        ("4.5 oz, 1,000 pieces", ["4.5", "oz", "1,000", "piec"]),
        ("rock'n'roll o'neil", ["rock'n'rol", "o'neil"]),
        ("t-shirt v-neck", ["t", "shirt", "v", "neck"]),
        ("u.s.b. and wi.fi", ["u.s.b", "wi.fi"]),
        ("the of and", []),
        ("snake_case 2.4ghz __ _a", ["snake_cas", "2.4ghz", "_a"]),
        ("漢字 Été", ["漢", "字", "été"]),
        ("5'2\"x7'4\"", ["5'2", "x7'4"]),
        ("s us ss", ["s", "us", "ss"]),
        ("apologies are possibly suitable", ["apolog", "possibl", "suitabl"]),
        ("soap 🍎🍏 ❤️ ©", ["soap", "🍎", "🍏", "❤️", "©"]),
        ("👨\u200d👩\u200d👧 👦🏽 🇩🇪🇫🇷 1️⃣ #️⃣", ["👨\u200d👩\u200d👧", "👦🏽", "🇩🇪", "🇫🇷", "1️⃣", "#️⃣"]),
        ("ΣΑΣ İ", ["σασ", "i"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("ไทย", ["ไทย"]),
        ("", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize("end", ["a", "é", "👩"], ids=ascii)
@pytest.mark.parametrize("unit", ["_", "a", "a.", "a_", "\u200d", "\u0301"], ids=ascii)
def test_the_time_grows_with_the_text(unit: str, end: str) -> None:
    begun = time.process_time()  # a busy machine is no slower in this
    words(unit * 50_000 + end)
    assert time.process_time() - begun < 6


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("possibly", "possibl"),  # bli -> ble, since the first version
        ("apologi", "apolog"),  # logi -> log
        ("archaeology", "archaeolog"),
        ("caresses", "caress"),
        ("agreed", "agre"),
        ("feed", "feed"),
        ("hopping", "hop"),
        ("falling", "fall"),
        ("filing", "file"),
        ("happy", "happi"),
        ("sky", "sky"),
        ("relational", "relat"),
        ("triplicate", "triplic"),
        ("adoption", "adopt"),
        ("controlling", "control"),
        ("rate", "rate"),
        ("is", "is"),
        ("yyyyy", "yyyyi"),
    ],
)
def test_stems(word: str, expected: str) -> None:
    assert stem(word) == expected


def test_a_word_is_cut_at_255_units_and_the_rest_is_read_on() -> None:
    assert [len(word) for word in words("a" * 600)] == [LONGEST, LONGEST, 90]
    assert [len(word) for word in words("𝐀" * 130)] == [127, 3]  # two units each
    assert words("x" * 254 + "'y") == ["x" * 254, "y"]
    assert words("_" * 300 + "a")[0] == "_" * 254 + "a"


@pytest.mark.parametrize("text", ["_" * 100_000, "a" * 100_000, "#" * 50_000, "'\"" * 50_000, "👦\u200d" * 30_000])
def test_long_runs_take_no_more_than_time_in_proportion(text: str) -> None:
    assert sum(map(len, words(text))) <= len(text)


@given(st.text(max_size=80))
def test_words_are_parts_of_the_text_in_its_order(text: str) -> None:
    place = 0
    for word in words(text):
        place = text.index(word, place) + len(word)
        assert sum(1 + (letter > "\uffff") for letter in word) <= LONGEST
        assert any(unicodedata.category(letter) not in ("Zs", "Zl", "Zp", "Cc") for letter in word)


@given(st.text(alphabet="abé漢🍎'._ 1\u0301", max_size=30), st.text(alphabet="abé漢🍎'._ 1\u0301", max_size=30))
def test_a_blank_separates_and_nothing_is_kept_wrongly(one: str, other: str) -> None:
    analyzer = EnglishAnalyzer()
    analyzer.terms(f"{other} {one}")
    assert analyzer.terms(f"{one} {other}") == [*terms(one), *terms(other)]
