"""A small hand-made household with every feature of the domain."""

from __future__ import annotations

from collections.abc import Sequence

from sdar.environments.alfworld.game import Game
from sdar.environments.alfworld.native import NativeEngine, NativeState

RECEPTACLES = {
    # identifier: (type, location, whether it can be closed)
    "CounterTop_bar_1": ("CounterTop", "loc_bar_0", False),
    "Shelf_bar_1": ("Shelf", "loc_bar_0", False),
    "Fridge_bar_1": ("Fridge", "loc_bar_1", True),
    "Microwave_bar_1": ("Microwave", "loc_bar_2", True),
    "Sink_bar_1_bar_SinkBasin": ("SinkBasin", "loc_bar_3", False),
    "Cabinet_bar_1": ("Cabinet", "loc_bar_4", True),
    "Cabinet_bar_2": ("Cabinet", "loc_bar_5", True),
    "Desk_bar_1": ("Desk", "loc_bar_6", False),
}

OBJECTS = {
    # identifier: (type, receptacles that contain it, abilities)
    "Apple_bar_1": ("Apple", ("Fridge_bar_1",), "pickupable heatable coolable cleanable sliceable"),
    "Bread_bar_1": ("Bread", ("CounterTop_bar_1",), "pickupable heatable sliceable"),
    "Bowl_bar_1": ("Bowl", ("CounterTop_bar_1",), "pickupable isreceptacleobject"),
    "Knife_bar_1": ("Knife", ("CounterTop_bar_1",), "pickupable cleanable"),
    "Mug_bar_1": ("Mug", ("CounterTop_bar_1",), "pickupable heatable coolable cleanable"),
    "Mug_bar_2": ("Mug", ("Cabinet_bar_2",), "pickupable heatable coolable cleanable"),
    "Pan_bar_1": ("Pan", ("CounterTop_bar_1", "Shelf_bar_1"), "pickupable coolable"),
    "DeskLamp_bar_1": ("DeskLamp", ("Desk_bar_1",), "toggleable"),
    "FloorLamp_bar_1": ("FloorLamp", ("Cabinet_bar_1",), "pickupable toggleable"),
    "Window_bar_1": ("Window", (), ""),
}

CONTAINS = {
    "CounterTop": ("Apple", "Bread", "Bowl", "Knife", "Mug", "Pan"),
    "Shelf": ("Mug", "Pan", "FloorLamp"),
    "Fridge": ("Apple", "Mug", "Pan"),
    "Microwave": ("Apple", "Mug"),
    "SinkBasin": ("Apple", "Mug", "Knife"),
    "Cabinet": ("Mug", "Bowl", "FloorLamp"),
    "Desk": ("Mug",),
}

START = "loc_bar_9"

PLACE = (
    "(exists (?r - receptacle) (exists (?o - object) (and (objectType ?o {obj}Type) (receptacleType ?r {target}Type) "
    "{extra}(inReceptacle ?o ?r))))"
)
TWO = (
    "(exists (?r - receptacle) (exists (?o1 - object) (and (objectType ?o1 {obj}Type) (receptacleType ?r {target}Type) "
    "(inReceptacle ?o1 ?r) (exists (?o2 - object) (and (not (= ?o1 ?o2)) (objectType ?o2 {obj}Type) "
    "(inReceptacle ?o2 ?r))))))"
)
LOOK = (
    "(and (exists (?t - object ?r - receptacle ?a - agent ?l - location) (and (objectType ?t {target}Type) "
    "(toggleable ?t) (isToggled ?t) (receptacleAtLocation ?r ?l) (atLocation ?a ?l) (inReceptacle ?t ?r))) "
    "(exists (?o - object ?a - agent) (and (objectType ?o {obj}Type) (holds ?a ?o))))"
)


def place(obj: str, target: str, extra: str = "") -> str:
    """The goal of an object in a receptacle, with further conditions on them."""
    return PLACE.format(obj=obj, target=target, extra=extra)


NEVER = place("Apple", "Microwave", "(isHot ?o) (isClean ?o) (isSliced ?o) ")
"""A goal nothing reaches by accident. (TextWorld's engine cannot load a game whose goal cannot be reached at all.)"""


def problem(goal: str = NEVER, facts: Sequence[str] = (), objects: Sequence[str] = (), start: str = START) -> str:
    """The household as a PDDL problem; ``facts`` and ``objects`` are added to it."""
    kinds = sorted({kind for kind, _, _ in OBJECTS.values()} | {"ButterKnife"})
    places = sorted({kind for kind, _, _ in RECEPTACLES.values()} | {"Sink"})
    declared = [
        "agent1 - agent",
        *(f"{kind}Type - otype" for kind in kinds),
        *(f"{kind}Type - rtype" for kind in places),
    ]
    declared += [f"{name} - object" for name in OBJECTS] + [f"{name} - receptacle" for name in RECEPTACLES]
    declared += [f"{name} - location" for name in sorted({at for _, at, _ in RECEPTACLES.values()} | {START})]
    init = [f"(atLocation agent1 {start})"]
    for name, (kind, at, openable) in RECEPTACLES.items():
        init += [f"(receptacleType {name} {kind}Type)", f"(receptacleAtLocation {name} {at})"]
        init += [f"(openable {name})"] if openable else []
    for kind, fitting in CONTAINS.items():
        init += [f"(canContain {kind}Type {other}Type)" for other in fitting]
    for name, (kind, inside, abilities) in OBJECTS.items():
        init += [f"(objectType {name} {kind}Type)", *(f"({ability} {name})" for ability in abilities.split())]
        init += [f"(inReceptacle {name} {receptacle})" for receptacle in inside]
        init += [f"(objectAtLocation {name} {RECEPTACLES[receptacle][1]})" for receptacle in inside[:1]]
    return document([*declared, *objects], [*init, *facts], goal)


def document(declared: Sequence[str], init: Sequence[str], goal: str) -> str:
    """A problem file of these parts."""
    return (
        f"(define (problem tiny)\n(:domain alfred)\n(:objects {' '.join(declared)})\n"
        f"(:init {' '.join(init)})\n(:goal {goal})\n)\n"
    )


def game(goal: str = NEVER, text: str = "put a window in fridge", **parts: Sequence[str] | str) -> Game:
    """The household as a game."""
    return Game("tiny", "pick_and_place_simple", text, problem(goal, **parts), "train")  # type: ignore[arg-type]


def start(goal: str = NEVER, **parts: Sequence[str] | str) -> NativeState:
    """The household, played natively, at its beginning."""
    return NativeEngine().load(game(goal, **parts)).start()[0]


def play(state: NativeState, *commands: str) -> str:
    """Apply commands, all of which must be admissible, and return the last text."""
    text = ""
    for command in commands:
        reply = state.step(command)
        text = reply.text
        assert text != "Nothing happens.", f"{command!r} is not admissible"
    return text
