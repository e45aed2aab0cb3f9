"""Measurements, as ratios to a baseline of the same run: machines are noisy, absolutes are not kept."""
