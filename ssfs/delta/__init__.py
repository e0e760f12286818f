"""Differences between two versions of one file: librsync signatures, deltas and patches.

`signature` and `patch` run where the basis is, `segment` where the new file is; neither knows of
the network or of the store. `librsync` is the only module that touches C, `commands` the only one
that knows the delta format, `errors` what a peer's bad signature or delta becomes.
"""
