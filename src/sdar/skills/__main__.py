"""``python -m sdar.skills``, the same as ``sdar skills``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("sdar.commands.skills", run_name="__main__")
