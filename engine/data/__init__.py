"""From an uploaded file to rows, and from media bytes to arrays."""
