"""A screen of TensorBoard as a picture: ``python scripts/picture_tensorboard.py LOGS OUT.png``.

Needs Chromium (Debian's package ``chromium``). ``--tab`` names another page than the first, ``--width`` and
``--height`` are those of the window.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sdar.errors import UserError, command, run_command
from toys.boards import DEEP, Served
from toys.chromium import BROWSER, Chromium

TABS = ("timeseries", "custom_scalars", "images", "text", "histograms", "hparams")
_LOADING = f"{DEEP}.some((one) => /spinner|progress/i.test(one.tagName) && one.getBoundingClientRect().width > 0)"


@command
def main(arguments: list[str]) -> int:
    """Start TensorBoard, open it, and save what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, help="folder of a run, or with runs below")
    parser.add_argument("out", type=Path, help="picture to write")
    parser.add_argument("--tab", choices=TABS, default=TABS[0])
    parser.add_argument("--width", type=int, default=1600)
    parser.add_argument("--height", type=int, default=1100)
    parser.add_argument("--dark", action="store_true")
    options = parser.parse_args(arguments)
    if BROWSER is None:
        raise UserError("a picture needs Chromium; install the package chromium")
    if not options.logs.is_dir():
        raise UserError(f"LOGS must be a folder of runs, got {options.logs}, which is none")
    # A scalar chart, a picture, or a text: something of the run is on the page.
    drawn = f"{DEEP}.some((one) => /^(svg|img|canvas|td|pre)$/i.test(one.tagName))"
    with Served(options.logs) as board, Chromium(options.width, options.height, dark=options.dark) as browser:
        browser.call("Page.navigate", url=f"{board.url}#{options.tab}")
        browser.wait(f"{drawn} && !{_LOADING}")
        _settled(browser, options.out)
    print(f"{options.out}: {options.width} x {options.height}")
    return 0


def _settled(browser: Chromium, out: Path, seconds: int = 60) -> None:
    """Save what is seen once it has been the same for five seconds: nothing says which line is drawn last."""
    before, same = b"", 0
    for _ in range(seconds):
        time.sleep(1)
        browser.picture(out)
        same = same + 1 if out.read_bytes() == before else 0
        before = out.read_bytes()
        if same == 5:
            return


if __name__ == "__main__":
    run_command(main)
