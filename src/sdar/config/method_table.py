"""``python -m sdar.config.method_table``, the same as ``python -m sdar.commands.method_table``."""

import runpy

if __name__ == "__main__":
    runpy.run_module("sdar.commands.method_table", run_name="__main__")
