"""nfreaim check: looks for each prerequisite of the daemon, and names the remedy for one that is missing."""
