"""Faults and load at full size in networks of the lab: `make soak`, `make load`. No part of `make test`."""
