"""Wrong settings of environments are refused by their path, from annotations alone, before anything is built."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sdar.errors import UserError
from sdar.run.validate import compose

SEARCH_QA = ["environment=search_qa"]
WEBSHOP = ["environment=webshop"]
HTTP = [*SEARCH_QA, "search_engine=http"]
BM25 = [*SEARCH_QA, "search_engine=bm25", "environment.search_engine.corpus=none.jsonl"]
DENSE = [*SEARCH_QA, "search_engine=dense", "environment.search_engine.corpus=none.jsonl"]


@pytest.mark.parametrize(
    ("chosen", "setting", "must_be"),
    [
        ([], "max_turns=0", "a whole number >= 1"),
        ([], "engine=warp", "'native' or 'textworld'"),
        ([], "prompt_style=loud", "'terse' or 'full'"),
        ([], "data_dir=", "a path"),
        ([], "num_tasks=[3,0,3]", "a list"),
        ([], "generator.receptacles=[9]", "a list"),
        ([], "generator.receptacles=[8,9.5]", "a list"),
        ([], "generator.receptacles=[8,34]", "a list"),
        ([], "generator.distractors=[-1,3]", "a list"),
        ([], "generator.usual_place_fraction=1.1", "a number >= 0 and <= 1"),
        ([], "generator.scenes_seen=0", "a whole number >= 1 and <= 1000"),
        ([], "generator.seed=x", "a whole number"),
        (SEARCH_QA, "max_turns=0", "a whole number >= 1"),
        (SEARCH_QA, "top_k=0", "a whole number >= 1"),
        (SEARCH_QA, "success_reward=0", "a number > 0"),
        (SEARCH_QA, "num_tasks=[3,0]", "a list"),
        (SEARCH_QA, "world.people=1", "a whole number >= 2"),
        (SEARCH_QA, "world.towns=0", "a whole number >= 1"),
        (HTTP, "search_engine.form=quary", "'queries' or 'query'"),
        (HTTP, "search_engine.urls=[3]", "a list of texts or a text"),
        (HTTP, "search_engine.timeout_s=0", "a number > 0"),
        (HTTP, "search_engine.attempts=0", "a whole number >= 1"),
        (HTTP, "search_engine.patience_s=.nan", "a number > 0"),
        (HTTP, "search_engine.connections=0", "a whole number >= 1"),
        (BM25, "search_engine.k1=-1", "a number >= 0"),
        (BM25, "search_engine.b=1.5", "a number >= 0 and <= 1"),
        (DENSE, "search_engine.max_tokens=0", "a whole number >= 1"),
        (WEBSHOP, "max_turns=0", "a whole number >= 1"),
        (WEBSHOP, "nouns=guess", "'auto' or 'file' or 'spacy' or 'words'"),
        (WEBSHOP, "catalogue.values_per_option=1", "a whole number >= 2 and <= 3"),
        (WEBSHOP, "catalogue.typical_fraction=2", "a number >= 0 and <= 1"),
    ],
)
def test_a_wrong_setting_is_named_by_its_path(chosen: list[str], setting: str, must_be: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([*chosen, f"environment.{setting}"])
    name = setting.partition("=")[0]
    assert str(caught.value).startswith(f"environment.{name} must be {must_be}")
    assert ", got " in str(caught.value)


@pytest.mark.e2e
def test_environments_are_made_without_torch() -> None:
    names = ("alfworld.environment", "webshop.environment", "search_qa.environment", "search_qa.http_client")
    imports = "; ".join(f"import sdar.environments.{name}" for name in (*names, "search_qa.dense", "search_qa.server"))
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
