"""Configuration: composing it, checking it, building what it names."""
