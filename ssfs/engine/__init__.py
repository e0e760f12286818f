"""A sync, an expiry, a restore: what ssfs exists for. Start at SYNC.md."""
