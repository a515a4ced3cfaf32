"""Pretrained encoders on this machine: the mirror, and where its folders come from."""
