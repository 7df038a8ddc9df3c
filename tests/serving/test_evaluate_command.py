"""``sdar evaluate``: the table, the run folder, and what is refused before anything is asked."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_endpoint import FakeEndpoint, completion, endpoint_of, refusal
from served import serving

from sdar.commands.evaluate import main
from sdar.commands.train import main as train
from sdar.policy.language_model import tiny_model
from sdar.rollout.settings import SamplingConfig
from sdar.serving.chat import ChatModel

SMALL = ["environment.num_tasks=[12,6,6]", "environment.max_turns=3", "evaluation.panel_size=6", "backoff_s=0.01"]
ACTION = "<think>so</think><action>look</action>"


def evaluated(fake: FakeEndpoint, folder: Path, *settings: str) -> int:
    return main([f"endpoint={fake.url}", f"run_dir={folder}", *SMALL, *settings])


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_the_folder_holds_figures_and_episodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    folder = tmp_path / "run"
    with endpoint_of([completion(ACTION)]) as fake:
        assert evaluated(fake, folder, "model=toy", "api_key_env=MY_KEY", "evaluation.sampling.temperature=0.3") == 0
    shown = capsys.readouterr()
    for words in ("| agent", "95 % interval", "random admissible agent", "expert", "3 toy", "4 toy, with skills"):
        assert words in shown.out
    record = results(folder)
    assert [(row["name"], row["n"], row["errors"]) for row in record["results"]] == [
        ("random admissible agent", 6, 0), ("expert", 6, 0), ("toy", 6, 0), ("toy, with skills", 6, 0)
    ]  # fmt: skip
    assert record["panel"]["split"] == "valid_unseen"
    assert record["endpoint"]["endpoint"] == fake.url
    assert record["endpoint"]["tokens"] == {"prompt_tokens": 5 * 36, "completion_tokens": 2 * 36}
    assert record["endpoint"]["failures"] == {}
    assert record["sampling"]["temperature"] == 0.3
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    assert [line["evaluation"] for line in lines] == ["toy"] * 6 + ["toy, with skills"] * 6
    assert lines[0]["turns"][0]["text"] == ACTION
    assert yaml.safe_load((folder / "config.yaml").read_text())["environment"]["prompt_style"] == "full"
    # The skills are those for language models, at the beginning of the first message.
    alone, skilled = fake.asked[0]["messages"][0]["content"], fake.asked[-1]["messages"][0]["content"]
    assert len(skilled) > len(alone)
    assert fake.asked[0]["temperature"] == 0.3
    # The key was sent, and is nowhere else.
    assert set(fake.keys) == {"Bearer sk-very-secret"}
    written = "".join(file.read_text() for file in folder.iterdir())
    assert "sk-very-secret" not in written + shown.out + shown.err


@pytest.mark.e2e
def test_the_panel_of_a_run_is_played_as_the_run_played_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The very table of the run that evaluated these weights greedily: task by task."""
    run = tmp_path / "run"
    evaluation = ["evaluation.panel_size=6", "evaluation.sampling.temperature=0", "evaluation.baselines=false"]
    games = ["environment.num_tasks=[12,6,6]", "environment.max_turns=6"]
    assert train(["train=false", f"run_dir={run}", "threads=1", *evaluation, *games]) == 0
    here = {row["name"]: row for row in results(run)["results"]}
    folder = tmp_path / "over http"
    with serving(ChatModel(tiny_model("alfworld"), SamplingConfig(max_response_tokens=48))) as server:
        assert main([f"endpoint={server.url}", f"run={run}", f"run_dir={folder}"]) == 0
    there = {row["name"]: row for row in results(folder)["results"]}
    for name, same in (("toy", "warm start"), ("toy, with skills", "warm start, with skills")):
        for figure in ("tasks", "task_ends", "task_turns", "success_rate", "interval_95", "errors"):
            assert there[name][figure] == here[same][figure]
    assert results(folder)["panel"] == results(run)["panel"]


def test_an_endpoint_that_fails_is_told_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    with endpoint_of([refusal(500, "oops")]) as fake:
        code = evaluated(fake, folder, "attempts=2", "give_up_after=2", "concurrency=1", "evaluation.baselines=false")
    shown = capsys.readouterr()
    assert code == 1
    (line,) = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert "6 of the 6 episodes of 'toy' ended by errors" in line
    assert "endpoint: server: status 500: oops" in shown.out
    assert "not comparable" in shown.out
    record = results(folder)
    assert [(row["n"], row["errors"], row["success_rate"]) for row in record["results"]] == [(0, 6, None)] * 2
    assert record["endpoint"]["failures"] == {"not_tried": 10, "server": 2}
    assert len(fake.asked) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("played", [3, 25])
def test_agents_that_were_played_are_kept_where_it_is_stopped(
    number: signal.Signals, played: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The third request is one of the model alone, the 25th one of the model with skills."""

    def answer(_: dict[str, Any], asked: int) -> Any:
        if asked == played:
            os.kill(os.getpid(), number)
        return completion(ACTION)

    before = signal.getsignal(number)
    signal.signal(number, signal.default_int_handler)
    try:
        with endpoint_of(answer) as fake:
            code = evaluated(fake, tmp_path / "run", "concurrency=1", "evaluation.baselines=false")
    finally:
        signal.signal(number, before)
    shown = capsys.readouterr()
    assert code == 128 + number
    assert f"stopped by {number.name}" in shown.err
    if played == 3:
        assert "no agent was played" in shown.err
        assert not (tmp_path / "run" / "results.json").exists()
    else:
        record = results(tmp_path / "run")
        assert [(row["name"], row["n"]) for row in record["results"]] == [("toy", 6)]
        assert record["stopped"] is True
        assert "1 toy" in shown.out


def test_a_few_errors_mark_the_row_and_leave_the_others_to_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(_: dict[str, Any], number: int) -> Any:
        return refusal(400, "I do not like it") if number == 1 else completion(ACTION)

    with endpoint_of(answer) as fake:
        assert evaluated(fake, tmp_path / "run", "evaluation.baselines=false", "with_skills=false") == 0
    shown = capsys.readouterr().out
    assert "1 toy (!)" in shown
    assert "1 of 6 episodes ended by errors" in shown
    (row,) = results(tmp_path / "run")["results"]
    assert (row["n"], row["errors"]) == (5, 1)
    assert row["ends"]["error_tool"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=toy"], "endpoint is missing"),
        (["endpoint=here"], "endpoint must be the base URL"),
        (["endpoint={url}", "concurrency=0"], "concurrency must be a whole number >= 1"),
        (["endpoint={url}", "attempts=x"], "attempts"),
        (["endpoint={url}", "model=other"], "must be one of those of"),
        (["endpoint={url}", "api_key_env=SDAR_NO_SUCH_KEY"], "api_key_env=SDAR_NO_SUCH_KEY"),
        (["endpoint={url}", "environment=moon"], "environment=moon"),
        (["endpoint={url}", "evaluation.panel_size=0"], "evaluation.panel_size"),
        (["endpoint={url}", "evaluation.panel_size=100000"], "evaluation.panel_size must be <= "),
        (["endpoint={url}", "evaluation.split=train"], "must be disjoint from training"),
        (["endpoint={url}", "optimizer.learning_rate=1"], "optimizer.learning_rate=1: only settings of "),
        (["endpoint={url}", "model.name=x"], "model.name=x: only settings of "),
        (["endpoint={url}", "teacher.position=before_template"], "teacher.position must be user_turn or system"),
        (["endpoint={url}", "teacher.budget_tokens=100"], "teacher.budget_tokens must be null"),
        (["endpoint={url}", "rollout=window", "rollout.max_prompt_tokens=100"], "rollout.max_prompt_tokens must be"),
        (["endpoint={url}", "run=/no/such/run"], "run must be the folder of a run"),
        (["endpoint={url}", "name=../x"], "name must be a folder's name"),
        (["endpoint={url}", "run_dir={full}"], "holds a run already"),
        (["endpoint={url}", "logs_dir={full}/results.json"], "not a directory"),
        (["endpoint=http://127.0.0.1:1/v1"], "endpoint must be the address of a server that answers"),
        (["--nothing"], "--nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_sentence_before_anything_is_played(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "results.json").touch()
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    with endpoint_of([completion(ACTION)]) as fake:
        assert words in refused(capsys, *(text.format(url=fake.url, full=full) for text in arguments))
    assert fake.asked == []
    assert list(place.iterdir()) == []


def test_only_single_settings_change_the_panel_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with endpoint_of([completion(ACTION)]) as fake:
        assert evaluated(fake, tmp_path / "first", "evaluation.baselines=false", "with_skills=false") == 0
        run = f"run={tmp_path / 'first'}"
        for text in ("environment=webshop", "evaluation={panel_size: 3}", "trainer.max_epochs=3", "environment.x.y=1"):
            assert "only single settings" in refused(capsys, f"endpoint={fake.url}", run, text)
        again = [f"endpoint={fake.url}", run, "evaluation.panel_size=2", f"run_dir={tmp_path / 'again'}"]
        assert main(again) == 0
    assert [row["n"] for row in results(tmp_path / "again")["results"]] == [2, 2]
