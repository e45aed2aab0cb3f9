"""The static rules: running the script that installs them, and the watch that restores them."""
