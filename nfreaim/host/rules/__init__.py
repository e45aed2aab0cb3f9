"""The static rules: the script that installs them, and the watch that restores them."""
