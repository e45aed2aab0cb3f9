"""Files of flows that outlive the daemon."""
