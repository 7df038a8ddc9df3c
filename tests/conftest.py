"""Makes ``tests/`` importable (``from helpers import ...``) and fixes what must be set before libraries load."""

import os

# Two processes with several OpenMP threads each spin against one another; small tests gain nothing from threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test may depend on the network.
os.environ["HF_HUB_OFFLINE"] = "1"
