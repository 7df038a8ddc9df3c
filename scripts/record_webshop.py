"""Record episodes in the built-in catalogue, as a golden file that shows every change of a page, a score or a ranking.

    python scripts/record_webshop.py tests/environments/webshop/golden/episodes.jsonl

One line per episode: the expert's purchases, and walks with clicks on everything and actions that are not possible.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sdar.environments.webshop.environment import WebshopEnvironment
from sdar.environments.webshop.shop import Session
from sdar.episode import Task
from sdar.randomness import keyed_generator

ODD = ("click[search]", "click[no such thing]", "look around", "search[<r>]", "search[red or blue and the 4.5 lamps]")


def episode(environment: WebshopEnvironment, task: Task, actions: list[str] | None) -> dict[str, Any]:
    """The record of an episode; ``actions`` None: a random walk of 14 steps."""
    session = Session(environment.shop, task.payload)
    record: dict[str, Any] = {"task": task.task_id, "reset": session.observation, "steps": []}
    for turn in range(14 if actions is None else len(actions)):
        action = choose(session, task, turn) if actions is None else actions[turn]
        clickables = session.clickables
        session.step(action)
        record["steps"].append(
            {"clickables": clickables, "action": action, "observation": session.observation, "score": session.score}
        )
        if session.done:
            break
    return record


def choose(session: Session, task: Task, turn: int) -> str:
    """Something on the page, a search, or something odd."""
    rng = keyed_generator(0, "golden", task.task_id, turn)
    draw = rng.random()
    if draw < 0.15:
        return str(rng.choice(ODD))
    if session.has_search_bar or draw < 0.25:
        words = task.description.split(" with ")[0].split()
        return f"search[{' '.join(words[-int(rng.integers(1, 4)) :])}]"
    rare = [name for name in ("next >", "features", "buy now") if name in session.clickables]
    return f"click[{rng.choice(rare if rare and draw < 0.4 else session.clickables)}]"


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="jsonl file to write")
    out = parser.parse_args().out
    environment = WebshopEnvironment()
    tasks = environment.tasks("test")
    episodes = [episode(environment, task, environment.expert(task)) for task in tasks[:6]]
    episodes += [episode(environment, task, None) for task in tasks[6:16]]
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in episodes)
    out.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
