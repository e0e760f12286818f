"""Frozen values that every layer speaks in: entries, versions, policies, places."""
