"""The client's disk: finding, excluding and reading what is to be backed up."""
