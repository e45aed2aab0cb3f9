"""Pinholes, the rules about them, and the gate that checks their connections."""
