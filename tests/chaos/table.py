"""The tables of ``docs/reliability.md``, from what the tests beside this file do: ``python tests/chaos/table.py``."""

from __future__ import annotations

from collections.abc import Sequence

from faults import FAULTS, Fault
from points import POINTS, RUNS


def table() -> str:
    """Faults with their outcome, and points at which a run is killed."""
    names = [*RUNS, "two processes"]
    points = "\n".join(f"- {point}" for point in POINTS)
    rows = [(fault.what, fault.outcome, _codes(fault), f"`{name}`") for name, fault in FAULTS.items()]
    return (
        f"{_markdown(('fault', 'outcome', 'exit code', 'test'), rows)}\n\n"
        f"Points at which a run is killed (`kill -9`) in its second of three iterations:\n\n{points}\n\n"
        f"Runs: {', '.join(names)}."
    )


def _codes(fault: Fault) -> str:
    return str(next(code for code in fault.codes if code is not None)) if fault.codes[0] != -9 else "killed"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    print(table())
