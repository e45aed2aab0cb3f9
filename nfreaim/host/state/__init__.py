"""What outlives the daemon, in files."""
