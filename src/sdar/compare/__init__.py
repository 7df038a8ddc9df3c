"""Several methods over several seeds: ``sdar compare algorithm=grpo,sdar seed=0..4``."""
