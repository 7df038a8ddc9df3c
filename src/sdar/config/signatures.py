"""What the objects of a configuration take, read from their source without importing it.

Most objects of a run need torch, whose import takes seconds, and a misspelt setting should be told at once. So names,
types and ranges are taken from the source text of classes and functions: parameters of a constructor, or fields of a
dataclass with those of its bases, and annotations as far as they are built of plain types, ``Literal``, ``Annotated``
and aliases of these. What an annotation means beyond that is left to the constructor.

Only definitions are found: an object that a module has merely imported from elsewhere has to be named where it is
defined or re-exported by name, and a module is never walked through to another one.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

_LIGHT = frozenset({"typing", "collections.abc", "pathlib", "datetime", "annotated_types", "sdar.config.fields"})
"""Modules whose objects stand for themselves in annotations."""
_ENUMS = frozenset({"Enum", "StrEnum", "IntEnum"})
_DATACLASSES = frozenset({"settings", "dataclass"})

Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter or a field: the ``module`` it stands in, its ``annotation``, and whether it has no default."""

    module: _Module
    annotation: ast.expr | None
    required: bool

    @cached_property
    def hint(self) -> Any:
        """The annotation as an object, as far as it can be told without imports."""
        return self.module.evaluate(self.annotation)


@dataclass(frozen=True)
class Signature:
    """``parameters`` by name; ``open``: others are taken as well (``**kwargs``, or a constructor that is not known)."""

    parameters: dict[str, Parameter]
    open: bool = False


class Kind(type):
    """The type of classes that stand for a class that is not imported; ``dotted`` is its name."""

    dotted: str


@dataclass(frozen=True, eq=False)
class Source:
    """A definition: its ``module``, the ``qualname`` inside it, and the syntax ``node``."""

    module: _Module
    qualname: str
    node: Definition

    @property
    def dotted(self) -> str:
        """Module and qualified name."""
        return f"{self.module.name}.{self.qualname}"

    @property
    def is_class(self) -> bool:
        """Whether it is a class, and not a function."""
        return isinstance(self.node, ast.ClassDef)

    @property
    def is_settings(self) -> bool:
        """Whether a mapping of its fields is enough to build it: a dataclass that is not abstract."""
        return _is_dataclass(self.node) and not {"ABC", "Protocol"} & set(map(_last_name, _bases(self.node)))

    def ancestors(self) -> Iterator[Source]:
        """The class and those it is made from, as far as their source is found."""
        yield self
        for base in _bases(self.node):
            found = self.module.base(_dotted(base))
            if found is not None:
                yield from found.ancestors()

    def is_a(self, dotted: str) -> bool:
        """Whether it is the class of that name, or one made from it."""
        return any(source.dotted == dotted for source in self.ancestors())

    @property
    def decorators(self) -> set[str]:
        """The last names of its decorators."""
        return _decorators(self.node)

    @property
    def is_protocol(self) -> bool:
        """Whether any class of the right shape will do."""
        return "Protocol" in map(_last_name, _bases(self.node))


@dataclass(frozen=True, eq=False)
class _Module:
    """A module's source: its top-level names, and the statements that bind them."""

    name: str
    package: str
    names: dict[str, ast.stmt] = field(repr=False)

    def definition(self, dotted: str) -> Source | None:
        """The class, function or method that a name means here, followed where it is imported by name; else None."""
        first, *rest = dotted.split(".")
        bound = self.names.get(first)
        source: Source | None = None
        if isinstance(bound, ast.ImportFrom):
            origin = self._origin(bound, first)
            source = None if origin == f"{self.name}.{first}" else find(origin)  # a package may import its own module
        elif isinstance(bound, Definition):
            source = Source(self, first, bound)
        for part in rest:
            # not one of another class: a method that was inherited would be called on the class it comes from
            source = source and _own_member(source, part)
        return source

    def base(self, dotted: str) -> Source | None:
        """The class that a base is, which may be named through a module, as in ``lightning.Callback``."""
        first, _, rest = dotted.partition(".")
        bound = self.names.get(first)
        if rest and isinstance(bound, ast.Import):
            known = next(alias.name for alias in bound.names if first in (alias.asname, alias.name.partition(".")[0]))
            as_named = any(alias.asname == first for alias in bound.names)
            return find(f"{known if as_named else first}.{rest}")
        if rest and isinstance(bound, ast.ImportFrom) and _module(origin := self._origin(bound, first)) is not None:
            return find(f"{origin}.{rest}")
        return self.definition(dotted)

    def _origin(self, statement: ast.ImportFrom, name: str) -> str:
        base = statement.module or ""
        if statement.level:
            parts = self.package.split(".")[: len(self.package.split(".")) - statement.level + 1]
            base = ".".join([*parts, *([base] if base else [])])
        original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        return f"{base}.{original}"

    def value(self, name: str) -> Any:
        """What a name stands for in an annotation; Any where that is not known."""
        bound = self.names.get(name)
        if bound is None or isinstance(bound, ast.Import):
            return getattr(builtins, name, Any)
        if isinstance(bound, ast.ImportFrom):
            module, _, original = self._origin(bound, name).rpartition(".")
            if module in _LIGHT:
                return getattr(importlib.import_module(module), original, Any)
            other = _module(module)
            return Any if other is None else other.value(original)
        if isinstance(bound, ast.Assign | ast.AnnAssign) and bound.value is not None:
            return self.evaluate(bound.value)
        return _kind(f"{self.name}.{name}") if isinstance(bound, ast.ClassDef) else Any

    def evaluate(self, annotation: ast.expr | None) -> Any:
        """An annotation as an object; Any where it cannot be told without imports."""
        if annotation is None:
            return Any
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        try:
            return eval(compile(ast.Expression(annotation), self.name, "eval"), {"__builtins__": {}}, _Names(self))
        except Exception:  # whatever an annotation may do: the constructor judges instead
            return Any


class _Names(dict[str, Any]):
    def __init__(self, module: _Module) -> None:
        super().__init__()
        self.module = module

    def __missing__(self, name: str) -> Any:
        return self.module.value(name)


@cache
def find(target: str) -> Source | None:
    """The class, function or method that a dotted name means; None where no source defines it."""
    parts = target.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:cut]))
        if module is not None:
            return module.definition(".".join(parts[cut:]))
    return None


@cache
def signature(source: Source) -> Signature:
    """What a class or function takes."""
    if isinstance(source.node, ast.FunctionDef):
        return _of_function(source.module, source.node, bound=bool(source.qualname.count(".")))
    return _of_class(source)


@cache
def _module(name: str) -> _Module | None:
    path = _file(name)
    if path is None:
        return None
    names: dict[str, ast.stmt] = {}
    for statement in _statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(statement, Definition):
            names[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom):
            names |= {alias.asname or alias.name: statement for alias in statement.names}
        elif isinstance(statement, ast.Import):
            names |= {alias.asname or alias.name.partition(".")[0]: statement for alias in statement.names}
        elif isinstance(statement, ast.AnnAssign | ast.Assign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {target.id: statement for target in targets if isinstance(target, ast.Name)}
    return _Module(name, name if path.name == "__init__.py" else name.rpartition(".")[0], names)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The top-level statements, those under ``if`` and ``try`` among them."""
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):
            yield from _statements([*statement.body, *statement.orelse])
        else:
            yield statement


def _file(name: str) -> Path | None:
    """The source file of a module; no package is imported for it."""
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.submodule_search_locations is None:
        return Path(spec.origin) if spec and spec.origin and not rest and spec.origin.endswith(".py") else None
    path = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
    return next((file for file in (path / "__init__.py", path.with_name(f"{path.name}.py")) if file.is_file()), None)


def _member(source: Source, name: str) -> Source | None:
    """A method, of the class or of one it is made from."""
    members = (_own_member(owner, name) for owner in source.ancestors())
    return next(filter(None, members), None)


def _own_member(source: Source, name: str) -> Source | None:
    """What a class defines itself."""
    for statement in source.node.body if source.is_class else ():
        if isinstance(statement, Definition) and statement.name == name:
            return Source(source.module, f"{source.qualname}.{name}", statement)
    return None


def _of_class(source: Source) -> Signature:
    constructor = _member(source, "__init__")
    if _is_dataclass(source.node) or constructor is None:
        fields = [found for owner in reversed(list(source.ancestors())) for found in _fields(owner)]
        if fields:
            return Signature(dict(fields))
    if constructor is None:
        return Signature({}, open=True)
    assert isinstance(constructor.node, ast.FunctionDef)
    return _of_function(constructor.module, constructor.node, bound=True)


def _fields(owner: Source) -> Iterator[tuple[str, Parameter]]:
    """The fields that one class of a dataclass adds."""
    if not _is_dataclass(owner.node):
        return
    for statement in owner.node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if "ClassVar" in ast.unparse(statement.annotation) or "init=False" in ast.unparse(statement):
            continue
        yield statement.target.id, Parameter(owner.module, statement.annotation, statement.value is None)


def _of_function(module: _Module, node: ast.FunctionDef, *, bound: bool) -> Signature:
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = [True] * (len(positional) - len(arguments.defaults)) + [False] * len(arguments.defaults)
    pairs = list(zip(positional, required, strict=True))[1 if bound else 0 :]
    pairs += [(one, default is None) for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return Signature(
        {one.arg: Parameter(module, one.annotation, missing) for one, missing in pairs},
        open=arguments.kwarg is not None,
    )


def returned_kind(source: Source) -> Any:
    """What a function says it gives; Any where it does not, or where it is a class."""
    return source.module.evaluate(source.node.returns) if isinstance(source.node, ast.FunctionDef) else Any


@cache
def _kind(dotted: str) -> Any:
    """What stands for a class in an annotation: an enumeration's values, else a :class:`Kind`."""
    source = find(dotted)
    assert source is not None
    if set(map(_last_name, _bases(source.node))) & _ENUMS:
        values = [
            statement.value.value
            for statement in source.node.body
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        ]
        return Literal[tuple(values)]
    return Kind(source.node.name, (), {"dotted": source.dotted})


def _bases(node: Definition) -> list[ast.expr]:
    return node.bases if isinstance(node, ast.ClassDef) else []


def _dotted(expression: ast.expr) -> str:
    return ast.unparse(expression.value if isinstance(expression, ast.Subscript) else expression)


def _last_name(expression: ast.expr) -> str:
    return _dotted(expression).rpartition(".")[2]


def _is_dataclass(node: Definition) -> bool:
    return isinstance(node, ast.ClassDef) and bool(_decorators(node) & _DATACLASSES)


def _decorators(node: Definition) -> set[str]:
    return {_last_name(one.func if isinstance(one, ast.Call) else one) for one in node.decorator_list}
