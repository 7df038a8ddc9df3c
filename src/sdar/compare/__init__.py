"""Several methods over several seeds: ``python -m sdar.compare algorithm=grpo,sdar seed=0..4``."""
