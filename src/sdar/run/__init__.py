"""One run: its settings and rules, the object graph, the session, its folder."""
