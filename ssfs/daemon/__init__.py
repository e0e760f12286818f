"""Processes that stay: the backup server."""
