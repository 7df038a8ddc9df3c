"""The table of methods in docs/methods.md: the files of ``configs/algorithm`` side by side.

    python -m sdar.config.method_table docs/methods.md     # writes it between its two marks

A test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdar.config.command_line import Parser
from sdar.config.sources import config_folder, groups
from sdar.errors import UserError, command, run_command
from sdar.files import MB, read_text
from sdar.objective.objective import ObjectiveConfig
from sdar.objective.schedule import Constant
from sdar.run.validate import compose

BEGIN = "<!-- begin: python -m sdar.config.method_table docs/methods.md -->"
END = "<!-- end -->"


def table() -> str:
    """The table in Markdown, a row per method, without a line break at its end."""
    rows = [_row(name) for name in groups(config_folder())["algorithm"]]
    lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_table(text: str) -> str:
    """The text with a new table between its marks. UserError if there are no marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"the text must contain {BEGIN} and {END}, between which the table is written")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _row(name: str) -> dict[str, str]:
    """Heading -> cell."""
    settings = compose([f"algorithm={name}"])
    method = settings.method
    objective, advantage, shaping = method.objective, method.advantage, method.shaping
    distils = objective.distillation_coefficient != 0
    reads = "skills" if method.skills_in_prompt else "plain"
    down = "" if method.schedules.coefficient == Constant() else ", then down to 0"
    beta = getattr(objective.gate, "beta", None)
    return {
        "`algorithm=`": f"`{name}`",
        "policy gradient": _policy(objective),
        "advantage": advantage.name if objective.policy_coefficient else "-",
        "shaping": f"{shaping.name}, weight {shaping.weight:g}{down}" if shaping else "-",
        "lambda": f"{objective.distillation_coefficient:g}{down if distils else ''}",
        "divergence": f"`{objective.divergence.name}`" if distils else "-",
        "gate": f"`{objective.gate.name}`{'' if beta is None else f', beta {beta:g}'}" if distils else "-",
        "teacher": _teacher(settings.config["teacher"]) if method.score_teacher else "not scored",
        "KL, entropy bonus": f"{objective.kl_coefficient:g}, {objective.entropy_coefficient:g}",
        "rollout prompt": reads if settings.train else f"{reads} (evaluated only)",
    }


def _policy(objective: ObjectiveConfig) -> str:
    if not objective.policy_coefficient:
        return "no"
    clips = f"clip {objective.clip_low:g}/{objective.clip_high:g}"
    return clips if objective.policy_length is None else f"{clips}, over a constant length"


def _teacher(teacher: Mapping[str, Any] | None) -> str:
    if teacher is None:
        return "-"
    reads = teacher["_target_"].rpartition(".")[2].removesuffix("Teacher").lower()
    return f"{reads}, `{teacher['source']}`"


@command
def main(arguments: Sequence[str]) -> int:
    """Renew the table of a page; returns the exit code."""
    parser = Parser(prog="python -m sdar.config.method_table", description="Renews the table of methods.")
    parser.add_argument("page", type=Path, help=f"Markdown file with the lines {BEGIN} and {END}")
    page = parser.parse_args(arguments).page
    page.write_text(with_table(read_text(page, MB)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    run_command(main)
