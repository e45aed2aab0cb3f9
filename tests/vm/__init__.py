"""Rows for kernels that the usual test machine does not have, run in a virtual machine (CONTRIBUTING.md)."""
