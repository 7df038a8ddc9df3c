"""How the shipped tiny models were made: demonstrations, supervised training, and the command that repeats it."""
