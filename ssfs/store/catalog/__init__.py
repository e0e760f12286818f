"""The catalog of one version: an SQLite file with a row per entry (FORMAT.md, "catalog.db")."""
