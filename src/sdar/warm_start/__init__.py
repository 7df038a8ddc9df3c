"""Training of the shipped tiny models: demonstrations, supervised training, and the command that reproduces it."""
