"""Versions as read-only dated directories: a FUSE file system over stores on this machine."""
