"""The server's disk: stores, sync points, tasks, versions, staging (FORMAT.md)."""
