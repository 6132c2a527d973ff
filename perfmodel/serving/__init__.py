"""Requests over time: steady-state closed forms and the metrics users read."""
