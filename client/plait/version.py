"""The version of the wheel, the same as the server's."""

VERSION = "2026.11.0"
