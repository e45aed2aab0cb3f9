"""TCP situations as dialogues: what an end sends, and what leaves. The notation: notation.py."""
