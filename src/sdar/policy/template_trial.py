"""Renders a chat template for trial, in a process of its own with little time and memory.

A template is a program: two nested loops keep it busy for hours, and a few doubled strings fill any memory. This file
is also the script of that process, and so imports nothing of sdar.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

SECONDS = 2.0
"""Processor time for all renderings of a template; those of real ones take some milliseconds."""
MEMORY = 1 << 30
"""Bytes of the whole process."""
CHARACTERS = 1_000_000
"""Longest rendering."""

_PATIENCE = 120.0
"""Seconds of waiting for the process on a busy machine."""
_READY = "ready"
_REMEMBERED = 1024
_known: dict[bytes, str | None] = {}
"""What was found about jobs, by their digest: large ones are not kept."""
_OUT_OF_MEMORY, _TOO_LONG = 3, 4


def runaway(template: str, renderings: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong with a template that exceeds a limit, as a clause; None if all renderings end.

    ``renderings`` are the variables of each. A template that only fails is none of the trial's business.
    """
    if len(template) > CHARACTERS:
        return "is longer"
    limits = {"seconds": SECONDS, "memory": MEMORY, "characters": CHARACTERS}
    job = json.dumps({"path": sys.path, "template": template, "renderings": renderings, **limits}, default=str)
    digest = hashlib.blake2b(job.encode("utf-8", "surrogatepass")).digest()
    if digest not in _known:
        if len(_known) >= _REMEMBERED:
            _known.clear()
        _known[digest] = _tried(job)
    return _known[digest]


def _tried(job: str) -> str | None:
    try:
        done = subprocess.run(
            [sys.executable, "-I", __file__], input=job, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return "takes longer"
    except OSError:
        return None  # no process can be started here
    if done.returncode == 0 or _READY not in done.stdout:
        return None
    if done.returncode == -getattr(signal, "SIGPROF", 0):
        return "takes longer"
    known = {_OUT_OF_MEMORY: "needs more memory", _TOO_LONG: "is longer"}
    return known.get(done.returncode, "breaks the interpreter")


def _limit(seconds: float, memory: int) -> None:
    """Bound this process, as far as the system can."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # nothing catches its signal, which ends the process


def _render(job: Mapping[str, Any]) -> int:
    """Render as transformers does, and return the exit code."""
    import jinja2.ext
    import jinja2.sandbox

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks what the assistant said; it renders what is inside."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(["name:endgeneration"], drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    print(_READY, flush=True)
    _limit(job["seconds"], job["memory"])
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False} | options)
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda _: "01 Jan 2026"}
    for variables in job["renderings"]:
        size = 0
        try:
            for piece in environment.from_string(job["template"]).generate(**variables):
                size += len(piece)
                if size > job["characters"]:
                    return _TOO_LONG
        except MemoryError:
            return _OUT_OF_MEMORY
        except Exception:  # whoever needs the text will say that it cannot be rendered
            continue
    return 0


if __name__ == "__main__":
    given = json.load(sys.stdin)
    sys.path[:] = given["path"]
    sys.exit(_render(given))
