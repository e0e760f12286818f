"""Durable disk calls: the only place that links, renames, fsyncs or locks."""
