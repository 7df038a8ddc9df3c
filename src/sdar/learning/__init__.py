"""One iteration: what is collected, prepared and learned from."""
