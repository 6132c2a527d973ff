"""Metrics: one file each, data first. Adding a metric is adding a file that defines ``METRIC``."""
