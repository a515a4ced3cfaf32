"""The craft: what runs on a GPU, from plain values. Knows no job, queue, web or database."""
