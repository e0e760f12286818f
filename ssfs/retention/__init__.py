"""Which versions stay and why: pure functions over dates, without disk and without clock."""
