"""What a user types: a module per command."""
