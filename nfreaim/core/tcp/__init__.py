"""The TCP side of the core: segments, streams with their edits, and handshakes that are not complete."""
