"""The edge to the other process: byte streams that carry a session."""
