"""A policy behind the API of OpenAI's chat completions."""
