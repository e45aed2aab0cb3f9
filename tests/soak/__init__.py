"""The long campaign of faults: ``make soak SOAK_SECONDS=600``. Not a part of ``make test``."""
