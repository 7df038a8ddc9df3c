"""The first screen of the episode browser as a picture: ``python scripts/picture_episodes.py RUN OUT.png``.

Needs Chromium (Debian's package ``chromium``). ``--find TEXT`` opens an episode with this text, ``--width`` and
``--dark`` say how the page is seen.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sdar.errors import UserError, command, run_command
from sdar.look.episodes import episodes_file, read_episodes
from sdar.look.page import episodes_page
from toys.chromium import BROWSER, Chromium


@command
def main(arguments: list[str]) -> int:
    """Write the page, open it, and save what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--find", default="", help="a text of the episode that is shown")
    parser.add_argument("--title", help="of the page; the folder's name if left out")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=860)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args(arguments)
    if BROWSER is None:
        raise UserError("a picture needs Chromium; install the package chromium")
    file = episodes_file(options.run)
    page = episodes_page(read_episodes(file), options.title or file.absolute().parent.name)
    with tempfile.TemporaryDirectory() as folder, Chromium(options.width, options.height, dark=options.dark) as browser:
        written = Path(folder) / "episodes.html"
        written.write_text(page.html, encoding="utf-8")
        browser.open(written, "document.body?.dataset.ready")
        browser.run(
            f"document.getElementById('text').value = {json.dumps(options.find)};"
            "document.getElementById('text').dispatchEvent(new Event('input')); document.body.dataset.busy = 'yes'; 0"
        )
        browser.wait("document.body.dataset.busy === ''")
        browser.key("n")
        browser.picture(options.out)
    print(f"{options.out}: {options.width} x {options.height}")
    return 0


if __name__ == "__main__":
    run_command(main)
