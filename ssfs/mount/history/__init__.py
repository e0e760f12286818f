"""The `.history` of a task: each file as a directory of its states."""
