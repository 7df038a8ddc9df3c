"""``python -m sdar.export``, as it was called before ``sdar export``."""

from sdar.commands.export import main
from sdar.errors import run_command

if __name__ == "__main__":
    run_command(main)
