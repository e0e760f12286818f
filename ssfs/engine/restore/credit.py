"""How much a client may have asked for at a time; a server ends the session of one that asks for more.

Asked for is what the server has not answered; a client, which counts until an answer has reached it,
never counts less than the server.
"""

CREDIT_FILES = 8192
"""Files of which the content may be outstanding, with or without a basis."""
CREDIT_BASIS_BYTES = 16 << 20
"""Bytes of descriptions of bases that wait for their file to be sent, half-sent ones included."""
