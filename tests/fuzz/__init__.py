"""Fuzzing: `make fuzz` with atheris; in `make test` the same targets over seeds and a few mutations."""
