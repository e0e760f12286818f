"""Restore: a version, or parts of it, copied out with metadata; from a store here or over a channel (SYNC.md)."""
