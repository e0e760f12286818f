"""ssfs: NAS-to-NAS backup that sends only changed blocks and keeps every version as a whole tree."""

__version__ = "0.1.0"
