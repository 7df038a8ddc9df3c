"""``python -m sdar.app``, as it was called before ``sdar train``."""

from sdar.commands.train import main
from sdar.errors import run_command

if __name__ == "__main__":
    run_command(main)
