"""The rules of Plait. Standard library and pydantic only, no I/O."""
