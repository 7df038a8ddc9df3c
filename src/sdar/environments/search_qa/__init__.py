"""Search-QA: questions answered with a search engine, after Search-R1."""
