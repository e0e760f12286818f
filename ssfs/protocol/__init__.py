"""The wire: messages, framing and the table of who may say what when. No I/O (PROTOCOL.md)."""
