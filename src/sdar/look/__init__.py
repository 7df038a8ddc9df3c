"""Looking at runs: what they recorded, as pages that need no network and as text for a terminal."""
