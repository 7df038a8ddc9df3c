"""Recorded episodes without a run: lines of ``episodes.jsonl`` as a run writes them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

TYPES = ("look_at_obj_in_light", "pick_and_place", "pick_clean_then_place")
ENDS = ("success", "failure", "turn_limit", "error_environment")
WORDS = ("go", "to", "the", "desk", "take", "mug", "one", "from", "drawer", "then", "open", "fridge", "look")


def line(number: int = 0, *, turns: int = 3, tokens: int = 20, tasks: int = 40, **changed: Any) -> dict[str, Any]:
    """An episode, the same for the same arguments; two follow each other in an iteration."""
    dice = random.Random(number)
    end = ENDS[number % len(ENDS)]
    task = number % tasks
    return {
        "iteration": number // 2,
        "teacher_reads": f"Look in the usual places first.\nThe mug {task % 7} is on the desk.",
        "task": f"train/{TYPES[task % 3]}/{task:05d}",
        "task_type": TYPES[task % 3],
        "description": f"put mug {task} on the desk",
        "member": number % 4,
        "opening": f"You are in a room.\n\nYour task is to: put mug {task} on the desk.",
        "end": end,
        "success": end == "success",
        "return": 10.0 if end == "success" else 0.0,
        "error": "the simulator is gone" if end == "error_environment" else None,
        "turns": [_turn(dice, i, tokens) for i in range(turns)],
        "last_observation": "You see nothing special.",
        "group": [
            {
                "member": member,
                "end": "turn_limit",
                "success": False,
                "return": 0.0,
                "advantage": -0.5,
                "actions": ["go to desk 1", f"open drawer {member}"],
            }
            for member in range(4)
            if member != number % 4
        ],
    } | changed


def _turn(dice: random.Random, index: int, count: int) -> dict[str, Any]:
    tokens = ["<think>", *(" " + dice.choice(WORDS) for _ in range(count - 3)), "</think>", " go to desk 1"][:count]
    student = [-round(dice.expovariate(3), 3) for _ in tokens]
    # Most gaps are small, and some tell a lot.
    gaps = [round(math.copysign(min(dice.expovariate(1) ** 4 / 8, 6), dice.random() - 0.6), 3) for _ in tokens]
    teacher = [round(min(s + g, 0.0), 3) for s, g in zip(student, gaps, strict=True)]
    gaps = [round(t - s, 4) for t, s in zip(teacher, student, strict=True)]
    return {
        "observation": f"You arrive at drawer {index}. The drawer {index} is closed.",
        "text": "".join(tokens),
        "action": f"go to desk {dice.randrange(3)}",
        "valid": True,
        "truncated": False,
        "reward": 0.0,
        "advantage": round(dice.gauss(0, 1), 4),
        "tokens": tokens,
        "student": student,
        "teacher": teacher,
        "gates": [round(1 / (1 + math.exp(-5 * gap)), 3) for gap in gaps],
        "gaps": gaps,
    }


def write_episodes(folder: Path, lines: list[dict[str, Any]]) -> Path:
    """The folder of a run that recorded these episodes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "episodes.jsonl").open("w", encoding="utf-8", errors="surrogatepass") as file:
        file.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in lines)
    return folder
