"""The tables of model families and chat templates in docs/model_families.md: every tiny model of the tests, loaded.

    python scripts/model_families.py docs/model_families.md     # writes them between their marks

A test compares the page with what is found. Needs a clone: the models are those of ``tests/toys``.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sdar.errors import UserError
from sdar.policy.chat import ChatFormat
from sdar.policy.chat_check import checked_chat
from sdar.policy.language_model import hf_model
from toys.chat_templates import STRUCTURES, Structure
from toys.families import FAMILIES, Family
from toys.matrix import save_tokenizer, save_weights

BEGIN, END = "<!-- begin: python scripts/model_families.py docs/model_families.md: {} -->", "<!-- end: {} -->"
_TOKENIZERS = {"bytes": "bytes", "bpe": "byte-level BPE", "unigram": "SentencePiece, unigrams"}


def families_table() -> str:
    """A row per family: what becomes of a model of it."""
    rows = (f"| `{family.kind}` | {family.models} | {family.traits or '-'} | {_found(family)} |" for family in FAMILIES)
    return "\n".join(["| `model_type` | models | special | here |", "|---|---|---|---|", *rows])


def templates_table() -> str:
    """A row per structure: what becomes of a conversation in it."""
    lines = ["| models | tokenizer | `rollout=append` | `rollout=window` |", "|---|---|---|---|"]
    for structure in STRUCTURES:
        kind = _TOKENIZERS.get(structure.kind, "SentencePiece")
        append, window = _contexts(structure)
        lines.append(f"| {structure.families} | {kind} | {append} | {window} |")
    return "\n".join(lines)


def with_tables(text: str) -> str:
    """The page with new tables between their marks. ValueError if there are no marks."""
    for name, table in (("families", families_table), ("templates", templates_table)):
        begin, end = BEGIN.format(name), END.format(name)
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page must contain {begin} and {end}, between which the table is written")
        text = f"{before}{begin}\n{table()}\n{end}{after}"
    return text


def _found(family: Family) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = save_tokenizer(save_weights(Path(folder), family), STRUCTURES[0])
        try:
            policy = hf_model(str(path))
        except UserError as error:
            reason = str(error).split(f"{folder!r} ")[-1].rpartition(";")[0]
            # Figures are those of random weights.
            return "refused: " + re.sub(r" \(by [^)]*\)", "", reason)
    config = policy.model.config.get_text_config()
    short = policy.context_tokens < config.max_position_embeddings if family.context < 512 else False
    windows = ", windows of any length" if policy.windows.limits else ""
    return "works, up to the length that its configuration names" if short else f"works{windows}"


def _contexts(structure: Structure) -> tuple[str, str]:
    tokenizer = structure.tokenizer()
    try:
        chat = checked_chat(ChatFormat.from_tokenizer(tokenizer, stop_ids=structure.stop_ids(tokenizer)))
    except UserError:
        return "refused", "refused"
    if chat.append_refusal is not None:
        return "refused", "works"
    return "the template's own ids" if chat.append_note is None else "keeps what was said", "works"


def main() -> None:
    """Rewrite the page that is named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="docs/model_families.md")
    page = parser.parse_args().page
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
