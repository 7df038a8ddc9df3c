"""``python -m sdar.play``, as it was called before ``sdar play``."""

from sdar.commands.play import main
from sdar.errors import run_command

if __name__ == "__main__":
    run_command(main)
