"""ALFWorld: engines, task sources and the environment."""
