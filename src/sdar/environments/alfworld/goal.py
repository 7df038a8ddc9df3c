"""Goals of ALFRED games: existential conjunctions over facts, compiled to sets of dynamic facts.

Every goal of the dataset is a conjunction of facts, (in)equalities and nested existentials. Static facts are resolved
once, at loading. The result is a short list of alternatives, each a tuple of dynamic facts that must all hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from sdar.environments.alfworld.engine import GameError
from sdar.environments.alfworld.problem import (
    DYNAMIC,
    PREDICATES,
    STATIC,
    Expression,
    Fact,
    Problem,
    check_fact,
    typed_names,
)

Alternatives = tuple[tuple[Fact, ...], ...]
"""Satisfied if all facts of at least one alternative hold."""

MAX_ALTERNATIVES = 20_000
"""Real goals have at most a few hundred."""
MAX_WORK = 2_000_000
"""Most comparisons of facts with conditions while a goal is compiled; real goals need about ten thousand."""


class Goal:
    """A compiled goal: a conjunction of independent parts, each with its alternatives."""

    def __init__(self, problem: Problem, name: str) -> None:
        literals: list[Expression] = []
        variables: dict[str, str] = {}
        _flatten(problem.goal, {}, literals, variables, name)
        _check_names(literals, variables, problem, name)
        solver = _Solver(problem, variables, name)
        self._parts: list[Alternatives] = [solver.solve(part) for part in _connected(literals, variables)]

    def satisfied(self, holds: Callable[[Fact], bool]) -> bool:
        """Whether the goal holds, given a test for dynamic facts."""
        return all(any(all(map(holds, facts)) for facts in part) for part in self._parts)

    @property
    def parts(self) -> list[Alternatives]:
        """The independent parts, for planners."""
        return self._parts


def _flatten(
    node: Expression, scope: dict[str, str], literals: list[Expression], variables: dict[str, str], name: str
) -> None:
    """Flatten nested ``and`` / ``exists`` into literals over uniquely named variables."""
    head = node[0] if node else ""
    if head == "and":
        for child in node[1:]:
            if isinstance(child, str):
                raise GameError(f"game {name}: stray {child!r} in ':goal'")
            _flatten(child, scope, literals, variables, name)
    elif head == "exists":
        if len(node) != 3 or not isinstance(node[1], list) or not isinstance(node[2], list):
            raise GameError(f"game {name}: 'exists' in ':goal' needs variables and one condition")
        inner = dict(scope)
        words = [word for word in node[1] if isinstance(word, str)]
        if len(words) != len(node[1]):
            raise GameError(f"game {name}: the variables of 'exists' contain an expression")
        for variable, type_name in typed_names(words, ":goal", name):
            unique = f"{variable}#{len(variables)}"
            variables[unique] = type_name
            inner[variable] = unique
        _flatten(node[2], inner, literals, variables, name)
    elif head == "not" and len(node) == 2 and isinstance(node[1], list) and node[1][:1] == ["="] and len(node[1]) == 3:
        literals.append(["!=", *(_rename(word, scope, name) for word in node[1][1:])])
    elif isinstance(head, str) and head in PREDICATES:
        if len(node) - 1 != len(PREDICATES[head]):
            raise GameError(f"game {name}: {head!r} in ':goal' needs {len(PREDICATES[head])} arguments")
        literals.append([head, *(_rename(word, scope, name) for word in node[1:])])
    else:
        raise GameError(f"game {name}: {head!r} is not supported in ':goal'")


def _rename(word: Expression | str, scope: dict[str, str], name: str) -> str:
    if not isinstance(word, str):
        raise GameError(f"game {name}: ':goal' has an expression in place of a name")
    if word.startswith("?"):
        if word not in scope:
            raise GameError(f"game {name}: variable {word!r} in ':goal' is not bound")
        return scope[word]
    return word


def _connected(literals: list[Expression], variables: dict[str, str]) -> list[list[Expression]]:
    """Group literals that share a variable, so that independent parts are not multiplied with each other."""
    groups: list[tuple[set[str], list[Expression]]] = []
    for literal in literals:
        used = {word for word in literal[1:] if isinstance(word, str) and word in variables}
        touching = [group for group in groups if group[0] & used]
        merged_names = used.union(*(group[0] for group in touching))
        merged = [entry for group in touching for entry in group[1]] + [literal]
        groups = [group for group in groups if not group[0] & used] + [(merged_names, merged)]
    return [entries for _, entries in groups]


def _check_names(literals: list[Expression], variables: dict[str, str], problem: Problem, name: str) -> None:
    """Refuse names of the wrong type, and variables that occur in no fact of the goal."""
    types = problem.types | variables
    bound: set[str] = set()
    for literal in literals:
        words = [str(word) for word in literal]
        if words[0] != "!=":
            check_fact(tuple(words), types, name)
            bound.update(words)
    for variable in variables:
        if variable not in bound:
            raise GameError(f"game {name}: the variable {variable.split('#')[0]!r} occurs in no fact of ':goal'")


class _Solver:
    """Enumerates bindings that satisfy static conditions, with a limit on the work."""

    def __init__(self, problem: Problem, variables: dict[str, str], name: str) -> None:
        self._problem = problem
        self._variables = variables
        self._name = name
        self._work = 0
        self._facts: dict[str, list[Fact]] = {}
        for fact in problem.init:
            self._facts.setdefault(fact[0], []).append(fact)

    def solve(self, literals: list[Expression]) -> Alternatives:
        """Bind the variables of one part of the goal and return the dynamic facts that each binding still needs."""
        words = [[str(word) for word in literal] for literal in literals]
        # The most selective predicates first: types, other static facts, then variables that only dynamic facts bind.
        order = {"objecttype": 0, "receptacletype": 0}
        static = sorted((w for w in words if w[0] in STATIC), key=lambda w: order.get(w[0], 1))
        dynamic = [w for w in words if w[0] in DYNAMIC]
        unequal = [w for w in words if w[0] == "!="]
        bindings: list[dict[str, str]] = [{}]
        for literal in static:
            bindings = self._matched(literal, bindings)
        for literal in dynamic:
            bindings = self._completed(literal, bindings)
        alternatives = [
            tuple((w[0], *(binding.get(x, x) for x in w[1:])) for w in dynamic)
            for binding in bindings
            if all(binding.get(a, a) != binding.get(b, b) for _, a, b in unequal)
        ]
        return tuple(dict.fromkeys(alternatives))

    def _matched(self, literal: list[str], bindings: list[dict[str, str]]) -> list[dict[str, str]]:
        """Bindings extended by the initial facts that match a static condition."""
        facts = self._facts.get(literal[0], [])
        self._spend(len(bindings) * len(facts))
        matches = (_match(literal, fact, binding, self._variables) for binding in bindings for fact in facts)
        return self._bounded(binding for binding in matches if binding is not None)

    def _completed(self, literal: list[str], bindings: list[dict[str, str]]) -> list[dict[str, str]]:
        """Bindings extended by every value of the variables that no static condition binds."""
        for word in literal[1:]:
            if word not in self._variables or all(word in binding for binding in bindings):
                continue
            kind = self._variables[word]
            values = [value for value in self._problem.used_names if self._problem.types.get(value) == kind]
            self._spend(len(bindings) * len(values))
            bindings = self._bounded({**binding, word: value} for binding in bindings for value in sorted(values))
        return bindings

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            raise GameError(f"game {self._name}: ':goal' takes more than {MAX_WORK} comparisons to compile")

    def _bounded(self, found: Iterable[dict[str, str]]) -> list[dict[str, str]]:
        bindings = list(islice(found, MAX_ALTERNATIVES + 1))
        if len(bindings) > MAX_ALTERNATIVES:
            raise GameError(f"game {self._name}: ':goal' has more than {MAX_ALTERNATIVES} alternatives")
        return bindings


def _match(literal: list[str], fact: Fact, binding: dict[str, str], variables: dict[str, str]) -> dict[str, str] | None:
    merged = dict(binding)
    for word, value in zip(literal[1:], fact[1:], strict=True):
        if word in variables:
            if merged.setdefault(word, value) != value:
                return None
        elif word != value:
            return None
    return merged
