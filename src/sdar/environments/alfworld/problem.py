"""Reader for the problem part of an ALFRED game: objects, initial facts and the goal.

Only constructs of the domain ``alfred`` are supported; anything else is an error that names it. Nothing is evaluated as
code, nesting and size are limited, and identifiers are lower-cased, as in Fast Downward.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat

from sdar.environments.alfworld.engine import GameError
from sdar.environments.facts import facts_beside

MAX_PROBLEM_CHARACTERS = 1_000_000
"""Real problems have at most about 100,000 characters."""
MAX_GOAL_DEPTH = 40
MAX_GOAL_TOKENS = 2_000
"""Real goals have fewer than a hundred names and parentheses."""

_DOMAIN = facts_beside(__file__)

TYPES = frozenset[str](_DOMAIN["types"])

STATIC: dict[str, tuple[str, ...]] = _DOMAIN["static"]
"""Predicates that no command changes, with the types of their arguments."""

DYNAMIC: dict[str, tuple[str, ...]] = _DOMAIN["dynamic"]
"""Predicates that commands change, with the types of their arguments."""

PREDICATES = STATIC | DYNAMIC

Fact = tuple[str, ...]
"""Predicate name followed by its arguments."""

Expression = list["Expression | str"]
"""A parenthesized expression of the goal."""


@dataclass(frozen=True)
class Problem:
    """A parsed problem. ``types`` maps each declared name to its type; ``init`` keeps the order of the file."""

    types: dict[str, str]
    init: tuple[Fact, ...]
    goal: Expression

    @cached_property
    def used_names(self) -> frozenset[str]:
        """Names that occur in at least one initial fact. The game ignores all others."""
        return frozenset(argument for fact in self.init for argument in fact[1:])


def read_problem(text: str, name: str) -> Problem:
    """Read a PDDL problem of the domain ``alfred``.

    Raises :class:`GameError`, which names the game (``name``) and the reason, for anything that is not supported.
    """
    if len(text) > MAX_PROBLEM_CHARACTERS:
        raise GameError(
            f"game {name}: the problem must have at most {MAX_PROBLEM_CHARACTERS} characters, got {len(text)}"
        )
    lowered = re.sub(r";[^\n]*", "", text).lower()
    head, objects_at, init_at, goal_at = _locate_sections(lowered, name)
    if _HEAD.fullmatch(head) is None:
        raise GameError(f"game {name}: the problem must begin with '(define (problem NAME) (:domain alfred)'")
    types = _read_objects(lowered[objects_at:init_at], name)
    init = _read_init(lowered[init_at:goal_at], types, name)
    goal = _read_goal(lowered[goal_at:], name)
    return Problem(types, init, goal)


_HEAD = re.compile(r"\s*\(\s*define\s*\(\s*problem\s+[^\s()]+\s*\)\s*\(\s*:domain\s+alfred\s*\)\s*")
_TAIL = re.compile(r"\s*(\(\s*:metric\s+minimize\s*\(\s*total-cost\s*\)\s*\)\s*)?\)\s*")


def _locate_sections(text: str, name: str) -> tuple[str, int, int, int]:
    known = {":domain", ":objects", ":init", ":goal", ":metric"}
    positions: dict[str, int] = {}
    for match in re.finditer(r"\(\s*(:[a-z-]+)", text):
        section = match.group(1)
        if section not in known:
            raise GameError(f"game {name}: unknown section {section!r} in the problem")
        if section in positions:
            raise GameError(f"game {name}: section {section!r} occurs twice in the problem")
        positions[section] = match.start()
    for section in (":domain", ":objects", ":init", ":goal"):
        if section not in positions:
            raise GameError(f"game {name}: the problem has no section {section!r}")
    objects_at, init_at, goal_at = positions[":objects"], positions[":init"], positions[":goal"]
    if not positions[":domain"] < objects_at < init_at < goal_at:
        raise GameError(f"game {name}: sections must come in the order :domain, :objects, :init, :goal")
    end = positions.get(":metric")
    if end is not None and end < goal_at:
        raise GameError(f"game {name}: section ':metric' must come last")
    return text[:objects_at], objects_at, init_at, goal_at


def _read_objects(section: str, name: str) -> dict[str, str]:
    body = re.fullmatch(r"\(\s*:objects([^()]*)\)\s*", section)
    if body is None:
        raise GameError(f"game {name}: ':objects' must be one list of names with types")
    words = body.group(1).split()
    if words[-1:] == ["-"]:
        raise GameError(f"game {name}: ':objects' ends after '-'")
    return dict(typed_names(words, ":objects", name))


def typed_names(words: Iterable[str], section: str, name: str) -> Iterator[tuple[str, str]]:
    """Names with their types in a list such as ``a b - object c - location``."""
    pending: list[str] = []
    rest = iter(words)
    for word in rest:
        if word != "-":
            pending.append(word)
            continue
        type_name = next(rest, "")
        if type_name not in TYPES:
            raise GameError(f"game {name}: unknown type {type_name!r} in {section!r}")
        yield from zip(pending, repeat(type_name), strict=False)
        pending = []
    if pending:
        raise GameError(f"game {name}: {pending[0]!r} in {section!r} has no type")


def _read_init(section: str, types: dict[str, str], name: str) -> tuple[Fact, ...]:
    inner = section[section.index(":init") + len(":init") :]
    facts = re.findall(r"\(([^()]*)\)", inner)
    if re.sub(r"\([^()]*\)", "", inner).strip() != ")":
        raise GameError(f"game {name}: ':init' must contain only facts")
    init = tuple(tuple(fact.split()) for fact in facts)
    for fact in init:
        check_fact(fact, types, name)
    return init


def check_fact(fact: Fact, types: dict[str, str], name: str) -> None:
    """Refuse a fact whose predicate, arity or argument types do not exist in the domain."""
    if not fact or fact[0] not in PREDICATES:
        raise GameError(f"game {name}: unknown predicate {(fact[0] if fact else '')!r}")
    expected = PREDICATES[fact[0]]
    if len(fact) - 1 != len(expected):
        raise GameError(
            f"game {name}: {' '.join(fact)!r} has {len(fact) - 1} arguments, but {fact[0]!r} takes {len(expected)}"
        )
    for argument, wanted in zip(fact[1:], expected, strict=True):
        found = types.get(argument) or _DOMAIN["constants"].get(argument)
        if found is None:
            raise GameError(f"game {name}: {argument!r} in {' '.join(fact)!r} is not declared")
        if found != wanted:
            raise GameError(f"game {name}: {argument!r} in {' '.join(fact)!r} must be of type {wanted}, got {found}")


def _read_goal(section: str, name: str) -> Expression:
    stack: list[Expression] = []
    for count, match in enumerate(re.finditer(r"[()]|[^\s()]+", section)):
        token = match.group()
        if count == MAX_GOAL_TOKENS:
            raise GameError(f"game {name}: ':goal' has more than {MAX_GOAL_TOKENS} names and parentheses")
        if token == "(":
            if len(stack) >= MAX_GOAL_DEPTH:
                raise GameError(f"game {name}: ':goal' is nested deeper than {MAX_GOAL_DEPTH}")
            stack.append([])
        elif token == ")":
            if not stack:
                break
            done = stack.pop()
            if not stack:
                if len(done) != 2 or not isinstance(done[1], list):
                    raise GameError(f"game {name}: ':goal' must contain exactly one condition")
                if _TAIL.fullmatch(section, match.end()) is None:
                    raise GameError(f"game {name}: the problem must end after ':goal'")
                return done[1]
            stack[-1].append(done)
        elif stack:
            stack[-1].append(token)
        else:
            break
    raise GameError(f"game {name}: ':goal' is not closed")
