"""``python -m sdar.app``, as it was called before ``sdar train``."""

import runpy

runpy.run_module("sdar.commands.train", run_name="__main__")
