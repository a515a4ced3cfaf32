"""Decoding in processes of its own: media come from strangers, and C libraries loop, crash and eat memory.

`pool.Decoders` is what the rest of the engine uses; `process` is what runs in each decoder.
"""
