"""What must survive: every fact of Plait, behind guarded functions. Knows no HTTP, no Redis, no torch."""
