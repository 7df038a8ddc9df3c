"""Run the code of a notebook and keep what it prints and draws: ``python scripts/run_notebook.py FILE.ipynb``.

It needs no Jupyter: cells are executed in order in one namespace, printed text becomes their output, and figures of
matplotlib that are open after a cell follow as PNG, as in a notebook. Tests run the examples with it.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

DPI = 90


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run the code cells of a notebook (nbformat 4), replace their outputs, and return the names that they leave."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
        text = [{"name": "stdout", "output_type": "stream", "text": printed.getvalue().splitlines(keepends=True)}]
        cell["outputs"] = [*(text if printed.getvalue() else []), *_drawn()]
        cell["execution_count"] = number
    return names


def _drawn() -> list[dict[str, Any]]:
    """The open figures, which are closed."""
    outputs = []
    for number in plt.get_fignums():
        file = io.BytesIO()
        plt.figure(number).savefig(file, dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        image = base64.b64encode(file.getvalue()).decode() + "\n"
        data = {"image/png": image, "text/plain": ["<Figure>"]}
        outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
    plt.close("all")
    return outputs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a notebook in place."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    file: Path = parser.parse_args(arguments).file
    notebook = json.loads(file.read_text(encoding="utf-8"))
    execute(notebook)
    file.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
