"""``python -m sdar.export``, as it was called before ``sdar export``."""

import runpy

runpy.run_module("sdar.commands.export", run_name="__main__")
