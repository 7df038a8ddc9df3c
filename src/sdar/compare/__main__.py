"""``python -m sdar.compare``, the same as ``sdar compare``."""

import sys

from sdar.compare.app import main

sys.exit(main(sys.argv[1:]))
