"""Data sets that Plait makes itself, for the demo and the tests; nothing of them is kept in the repository."""
