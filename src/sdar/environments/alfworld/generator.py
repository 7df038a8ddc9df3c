"""Seeded households of the ALFRED text domain, as games in the dataset's problem format.

A scene is a room with its receptacles, drawn once per (seed, room, number). A game furnishes a scene with objects, most
of them in their usual places, and poses one of the six task types. Every game is solvable by construction, and the
expert verifies it. ``train`` and ``valid_seen`` share scenes but not games; the scenes of ``valid_unseen`` have
furniture that differs from every training scene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Le

from sdar.config.fields import Fraction, Lax, settings
from sdar.environments.alfworld import world
from sdar.environments.alfworld.engine import GameError
from sdar.environments.alfworld.expert import solve
from sdar.environments.alfworld.game import TASK_TYPES, Game
from sdar.environments.alfworld.native import NativeEngine
from sdar.environments.alfworld.task_text import TEMPLATES
from sdar.environments.facts import facts_beside
from sdar.errors import UserError
from sdar.randomness import keyed_generator

SPLITS = ("train", "valid_seen", "valid_unseen")
_MAX_ATTEMPTS = 200

Receptacles = Annotated[int, Ge(8), Le(33)]
Distractors = Annotated[int, Ge(0), Le(200)]
Scenes = Annotated[int, Ge(1), Le(1000)]


@settings(frozen=True)
class GeneratorSettings:
    """How households are generated.

    The defaults give small households; ``receptacles=(12, 33)``, ``distractors=(20, 36)`` resembles the dataset.

    ``receptacles``           (least, most) per game
    ``distractors``           (least, most) per game
    ``usual_place_fraction``  probability that an object is in one of its two usual places
    ``scenes_seen``           scenes per room of train and valid_seen
    ``scenes_unseen``         scenes per room of valid_unseen
    """

    seed: int = 0
    receptacles: Annotated[tuple[Receptacles, Receptacles], Lax] = (8, 11)
    distractors: Annotated[tuple[Distractors, Distractors], Lax] = (6, 9)
    usual_place_fraction: Fraction = 0.9
    scenes_seen: Scenes = 10
    scenes_unseen: Scenes = 4

    def __post_init__(self) -> None:
        """Refuse reversed bounds."""
        for name, (least, most) in (("receptacles", self.receptacles), ("distractors", self.distractors)):
            if least > most:
                raise UserError(
                    f"environment.generator.{name} must be [least, most] with least <= most, got [{least}, {most}]"
                )


@dataclass(frozen=True)
class Scene:
    """A room: receptacle types in the order of their numbers, with one location each."""

    room: str
    number: int
    receptacles: tuple[str, ...]


class HouseholdGenerator:
    """Generates games. A game depends on the settings, its split and its index only."""

    def __init__(self, settings: GeneratorSettings) -> None:
        self.settings = settings
        self._engine = NativeEngine()
        seen, unseen = settings.scenes_seen, settings.scenes_unseen
        self._seen = {room: [self._scene(room, number, set()) for number in range(seen)] for room in world.ROOMS}
        self._unseen: dict[str, list[Scene]] = {}
        for room in world.ROOMS:
            taken = {tuple(sorted(scene.receptacles)) for scene in self._seen[room]}
            self._unseen[room] = [self._scene(room, seen + number, taken) for number in range(unseen)]

    def scenes(self, split: str) -> dict[str, list[Scene]]:
        """Scenes per room of a split."""
        return self._unseen if split == "valid_unseen" else self._seen

    def game(self, split: str, index: int) -> Game:
        """The game with this index. Task types alternate, so any six consecutive indices have all six."""
        task_type = TASK_TYPES[index % len(TASK_TYPES)]
        for attempt in range(_MAX_ATTEMPTS):
            rng = keyed_generator(self.settings.seed, "household", split, index, attempt)
            game = self._draw(rng, split, index, task_type)
            if game is not None:
                return game
        raise UserError(
            f"environment.generator.receptacles={list(self.settings.receptacles)} gives no {task_type} game; "
            "increase the number of receptacles"
        )

    def _scene(self, room: str, number: int, taken: set[tuple[str, ...]]) -> Scene:
        layout = world.LAYOUTS[room]
        for attempt in range(_MAX_ATTEMPTS):
            rng = keyed_generator(self.settings.seed, "scene", room, number, attempt)
            least, most = self.settings.receptacles
            wanted = int(rng.integers(least, most + 1))
            counts = {kind: bounds[0] for kind, bounds in layout.items()}
            while sum(counts.values()) < wanted:
                usual = [kind for kind, bounds in layout.items() if counts[kind] < bounds[1]]
                large = [kind for kind, bounds in layout.items() if counts[kind] < bounds[2]]
                if not usual and not large:
                    break
                counts[str(rng.choice(usual or large))] += 1
            receptacles = tuple(kind for kind, count in counts.items() for _ in range(count))
            if tuple(sorted(receptacles)) not in taken:
                return Scene(room, number, receptacles)
        raise UserError(
            f"environment.generator.receptacles={list(self.settings.receptacles)} leaves no {room} that differs from "
            "the training scenes; widen the range, or reduce environment.generator.scenes_seen"
        )

    def _draw(self, rng: np.random.Generator, split: str, index: int, task_type: str) -> Game | None:
        room = str(rng.choice(world.ROOMS_OF_TASK[task_type]))
        scenes = self.scenes(split)[room]
        scene = scenes[int(rng.integers(len(scenes)))]
        allowed = world.OBJECTS_OF_TASK[task_type]
        kinds = [kind for kind in world.USUAL_PLACES[room] if allowed is None or kind in allowed]
        obj = str(rng.choice(kinds))
        looking = task_type == "look_at_obj_in_light"
        targets = sorted({kind for kind in scene.receptacles if kind in world.FITS[obj]})
        if not looking and len(targets) < 2:
            return None
        target = "DeskLamp" if looking else str(rng.choice(targets))
        placements = self._furnish(rng, scene, obj, target, task_type)
        if placements is None:
            return None
        template = str(rng.choice(TEMPLATES[task_type]))
        text = template.format(obj=obj.lower(), target=target.lower())
        problem = _problem(rng, scene, placements, task_type, obj, target)
        game_id = f"{split}/{task_type}-{obj}-{target}-{scene.room}{scene.number}/{index:05d}"
        game = Game(game_id, task_type, text, problem, split)
        state, reply = self._engine.load(game).start()
        if reply.won:
            return None
        walkthrough = solve(state, text)
        if walkthrough is None:
            raise GameError(f"game {game_id}: it was generated to be solvable, but the expert found no solution")
        return Game(game_id, task_type, text, problem, split, tuple(walkthrough))

    def _furnish(
        self, rng: np.random.Generator, scene: Scene, obj: str, target: str, task_type: str
    ) -> list[tuple[str, int]] | None:
        """Objects with the number of their receptacle, or None if the wanted object fits nowhere."""
        wanted = 2 if task_type == "pick_two_obj_and_place" else 1
        placements: list[tuple[str, int]] = []
        for _ in range(wanted):
            place = self._place(rng, scene, obj, without=target)
            if place is None:
                return None
            placements.append((obj, place))
        usual = world.USUAL_PLACES[scene.room]
        if scene.room in world.ROOMS_OF_TASK["look_at_obj_in_light"]:
            lamp = self._place(rng, scene, "DeskLamp", without="")
            if lamp is None:
                return None
            placements.append(("DeskLamp", lamp))
        others = [kind for kind in usual if kind != obj]
        least, most = self.settings.distractors
        for _ in range(int(rng.integers(least, most + 1))):
            kind = str(rng.choice(others))
            place = self._place(rng, scene, kind, without="")
            if place is not None:
                placements.append((kind, place))
        return placements

    def _place(self, rng: np.random.Generator, scene: Scene, kind: str, without: str) -> int | None:
        fits = [n for n, r in enumerate(scene.receptacles) if r in world.FITS[kind] and r != without]
        usual_kinds = world.USUAL_PLACES[scene.room].get(kind, ())
        usual = [n for n in fits if scene.receptacles[n] in usual_kinds]
        if usual and rng.random() < self.settings.usual_place_fraction:
            return int(rng.choice(usual))
        return int(rng.choice(fits)) if fits else None


def _identifier(rng: np.random.Generator, kind: str) -> str:
    """An identifier in the dataset's style: type and a made-up position."""
    parts = []
    for _ in range(3):
        value = float(rng.uniform(-3.0, 3.0))
        sign = "minus" if value < 0 else "plus"
        parts.append(f"_{sign}_{abs(value):05.2f}".replace(".", "_dot_"))
    base = {"SinkBasin": "Sink", "BathtubBasin": "Bathtub"}.get(kind, kind)
    suffix = f"_bar_{kind}" if base != kind else ""
    return "_bar_".join([base, *parts]) + suffix


def _problem(
    rng: np.random.Generator,
    scene: Scene,
    placements: list[tuple[str, int]],
    task_type: str,
    obj: str,
    target: str,
) -> str:
    """The PDDL problem of a game, with the same kinds of facts as the dataset's problems."""
    receptacles = _distinct(rng, list(scene.receptacles))
    objects = _distinct(rng, [kind for kind, _ in placements])
    locations = [f"loc_bar_{number}_bar_0_bar_0_bar_30" for number in range(len(receptacles))]
    start = f"loc_bar_{len(receptacles)}_bar_0_bar_0_bar_30"
    object_kinds = sorted({kind for kind, _ in placements} | {"Knife", "ButterKnife"})
    receptacle_kinds = sorted(set(scene.receptacles) | {"Sink", "SinkBasin", "Microwave", "Fridge"})

    declared = ["agent1 - agent"]
    declared += [f"{kind}Type - otype" for kind in object_kinds]
    declared += [f"{kind}Type - rtype" for kind in receptacle_kinds]
    declared += [f"{name} - object" for name in objects]
    declared += [f"{name} - receptacle" for name in receptacles]
    declared += [f"{name} - location" for name in [*locations, start]]

    facts = [f"(atLocation agent1 {start})"]
    for name, kind, location in zip(receptacles, scene.receptacles, locations, strict=True):
        facts += [f"(receptacleType {name} {kind}Type)", f"(receptacleAtLocation {name} {location})"]
        if kind in world.OPENABLE:
            facts.append(f"(openable {name})")
    for kind in sorted(set(scene.receptacles)):
        facts += [f"(canContain {kind}Type {fitting}Type)" for fitting in object_kinds if kind in world.FITS[fitting]]
    for name, (kind, place) in zip(objects, placements, strict=True):
        facts += [f"(objectType {name} {kind}Type)", f"(inReceptacle {name} {receptacles[place]})"]
        facts.append(f"(objectAtLocation {name} {locations[place]})")
        facts += [f"({ability} {name})" for ability, kinds in _ABILITIES.items() if kind in kinds]
        facts.append(f"(toggleable {name})" if kind == "DeskLamp" else f"(pickupable {name})")
    goal = _GOALS[task_type].format(obj=obj, target=target)
    body = "\n        ".join(declared)
    init = "\n        ".join(facts)
    return (
        f"(define (problem household)\n    (:domain alfred)\n    (:objects\n        {body}\n    )\n"
        f"    (:init\n        {init}\n    )\n    (:goal {goal})\n)\n"
    )


def _distinct(rng: np.random.Generator, kinds: list[str]) -> list[str]:
    names: list[str] = []
    for kind in kinds:
        name = _identifier(rng, kind)
        while name in names:
            name = _identifier(rng, kind)
        names.append(name)
    return names


_ABILITIES = {
    "heatable": world.HEATABLE,
    "coolable": world.COOLABLE,
    "cleanable": world.CLEANABLE,
    "sliceable": world.SLICEABLE,
}

_GOALS: dict[str, str] = facts_beside(__file__)["goals"]
