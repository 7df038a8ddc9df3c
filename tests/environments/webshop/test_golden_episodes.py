"""Recorded episodes in the built-in catalogue are reproduced."""

import json
from pathlib import Path

from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.environments.webshop.shop import Session

EPISODES = [json.loads(line) for line in (Path(__file__).parent / "golden" / "episodes.jsonl").read_text().splitlines()]


def test_every_page_and_score_is_as_recorded():
    environment = WebshopEnvironment()
    tasks = {task.task_id: task for task in environment.tasks("test")}
    for episode in EPISODES:
        session = Session(environment.shop, tasks[episode["task"]].payload)
        assert session.observation == episode["reset"]
        for step in episode["steps"]:
            assert session.clickables == step["clickables"]
            session.step(step["action"])
            assert (session.observation, session.score) == (step["observation"], step["score"]), step["action"]


def test_the_recording_has_every_kind_of_page_and_both_kinds_of_ends():
    steps = [step for episode in EPISODES for step in episode["steps"]]
    pages = " ".join(step["observation"] for step in steps)
    assert all(part in pages for part in ("Page 1 (", "Page 2 (", "WebShop [SEP]", "Price: ", "It is "))
    scores = [episode["steps"][-1]["score"] for episode in EPISODES if not episode["steps"][-1]["observation"]]
    assert scores.count(1.0) >= 6
    assert min(scores) < 1.0
