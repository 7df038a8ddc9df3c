"""``python -m sdar.play``, as it was called before ``sdar play``."""

import runpy

runpy.run_module("sdar.commands.play", run_name="__main__")
