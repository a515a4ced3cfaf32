"""Both implementations of the SigLIP loss on one process's rows."""
