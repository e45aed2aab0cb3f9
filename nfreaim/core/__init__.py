"""The sans-IO core: packets in, verdicts out. No socket, file, clock, thread or third-party import."""
