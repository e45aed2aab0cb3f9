"""What the operator sees: log, status and counters."""
