"""Mounts of what a server has: the same tree, over catalogs that are fetched as they are looked into."""
