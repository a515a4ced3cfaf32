"""The door: HTTP in, JSON out. Loads no torch, ever."""
