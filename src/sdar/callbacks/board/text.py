"""Text that TensorBoard's text page shows as it stands, whoever wrote it.

The page reads markdown and keeps links and pictures of other servers. In an indented block markdown means nothing, and
what would act in a browser or a terminal is escaped.
"""

from __future__ import annotations

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text.metadata import create_summary_metadata

from sdar.output.printable import printable

WIDTH = 110
"""Letters of a line; longer ones go on below."""
LONGEST = 20_000
"""Letters of a text, the indentation not counted."""
_INDENT = "    "


def block(text: str, longest: int = LONGEST) -> str:
    """A block of markdown that shows a text of others, cut behind ``longest`` letters."""
    shown = printable(text[:longest])[:longest].expandtabs()
    lines = [piece for line in shown.split("\n") for piece in _pieces(line)]
    if len(text) > longest:
        lines.append(f"... and {len(text) - longest} letters more")
    return "\n".join(_INDENT + line for line in lines)


def _pieces(line: str) -> list[str]:
    """A line in pieces of at most :data:`WIDTH` letters, cut behind a space where there is one in their second half."""
    pieces = []
    while len(line) > WIDTH:
        end = line.rfind(" ", WIDTH // 2, WIDTH) + 1 or WIDTH
        pieces.append(line[:end])
        line = line[end:]
    return [*pieces, line]


def page(parts: list[tuple[str, str]], longest: int = LONGEST) -> str:
    """Headings of our own, each with a text of others below it; all texts together have ``longest`` letters."""
    pieces = []
    for heading, text in parts:
        if longest <= 0:
            pieces.append("**the rest is left out**")
            break
        pieces.append(f"**{heading}**")
        if text.strip():
            pieces.append(block(text, longest))
        longest -= len(text)
    return "\n\n".join(pieces) + "\n"


def text_summary(tag: str, markdown: str) -> Summary:
    """A summary for the text page."""
    tensor = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()], tensor_shape=TensorShapeProto())
    value = Summary.Value(tag=tag, metadata=create_summary_metadata("", ""), tensor=tensor)
    return Summary(value=[value])
