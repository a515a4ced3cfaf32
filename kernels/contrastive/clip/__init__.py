"""Both implementations of the CLIP loss on one process's rows."""
