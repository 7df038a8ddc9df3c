"""An extension of griffe: docstrings of this project as Markdown.

They describe fields in lines such as ``beta``  slope of the gate, with two spaces or more behind the name, and refer to
other names by roles (:class:`Gate`). The first become lists, the second cross-references.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

FIELD = re.compile(r"^``(\S.*?)`` {2,}(\S.*)$")
ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`~?([^`]+)`")


class Markdown(griffe.Extension):
    """Rewrites each docstring when its object has been read, and shows the fields of settings in their signature."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for every object."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """``@settings`` makes a dataclass, which griffe cannot know."""
        for decorator in cls.decorators:
            if decorator.callable_path == "sdar.config.fields.settings":
                decorator.value = griffe.ExprName("dataclasses.dataclass")


def markdown(docstring: str) -> str:
    """The docstring with lists for fields and links for roles."""
    lines, in_list = [], False
    for line in inspect.cleandoc(docstring).splitlines():
        field = FIELD.match(line)
        if field:
            if not in_list and lines and lines[-1]:
                lines.append("")
            lines.append(f"- ``{field[1]}``: {field[2]}")
        elif in_list and line.startswith("   "):
            lines.append(f"    {line.strip()}")
        else:
            if in_list and line:
                lines.append("")
            lines.append(line)
        in_list = bool(field) or (in_list and line.startswith("   "))
    text = ROLE.sub(lambda role: _link(role[1]), "\n".join(lines))
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


def _link(name: str) -> str:
    """A reference that stays plain code where the site does not have the name."""
    if name.startswith("sdar."):
        return f'<autoref identifier="{name}" optional><code>{name.rpartition(".")[2]}</code></autoref>'
    return f"`{name}`"
