"""Interfaces that nobody named: whether this machine's own set-up shows them, and waiting until it does."""
