"""YMSG as the tests know it, from its descriptions; it imports nothing of nfreaim, because it judges it."""
