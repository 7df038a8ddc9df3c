"""``sdar play --policy URL``: watching a model behind an endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from fake_endpoint import completion, endpoint_of, refusal

from sdar.commands.play import main

SMALL = ("environment=alfworld", "environment.num_tasks=[6,6,6]", "environment.max_turns=2")
ACTION = "<think>so</think><action>look</action>"


def play(*arguments: str) -> tuple[int, str]:
    shown: list[str] = []
    return main([*SMALL, *arguments], write=shown.append), "\n".join(map(str, shown))


def test_the_endpoint_is_asked_turn_by_turn() -> None:
    with endpoint_of([completion(ACTION)]) as fake:
        code, shown = play("--policy", fake.url, "--temperature", "0", "--skills")
    assert code == 0
    assert "the model also reads:" in shown
    assert f"response: {ACTION}" in shown
    assert "action: look" in shown
    assert [len(body["messages"]) for body in fake.asked] == [1, 3]
    assert fake.asked[0]["temperature"] == 0
    # The prompts are those for pretrained models.
    assert "between <think> and </think>" in fake.asked[0]["messages"][0]["content"]


def test_with_window_each_request_is_a_prompt() -> None:
    with endpoint_of([completion(ACTION)]) as fake:
        assert play("rollout=window", "--policy", fake.url, "--model", "toy")[0] == 0
    assert [len(body["messages"]) for body in fake.asked] == [1, 1]
    assert "> look" in fake.asked[1]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("reply", "arguments", "code", "words"),
    [
        (refusal(400, "no"), [], 1, "the endpoint gives no response (refused: status 400: no)"),
        (refusal(400, "x", "context_length_exceeded"), [], 1, "longer than the model's context"),
        (completion(ACTION), ["--model", "other"], 2, "model must be one of those of"),
        (completion(ACTION), ["--skills", "teacher.position=before_template"], 2, "teacher.position must be"),
    ],
    ids=["refused", "too long", "unknown model", "no message"],
)
def test_what_cannot_be_watched(reply: Any, arguments: list[str], code: int, words: str, capsys: Any) -> None:
    with endpoint_of([reply]) as fake:
        assert play("--policy", fake.url, *arguments)[0] == code
    assert words in capsys.readouterr().err


def test_a_model_needs_an_endpoint(capsys: Any) -> None:
    assert play("--policy", "alfworld", "--model", "x")[0] == 2
    assert "--model needs the URL" in capsys.readouterr().err
