"""What a mount looks at on a server, at both ends (PROTOCOL.md, "Browsing")."""
