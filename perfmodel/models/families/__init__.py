"""Readers of vendor configurations, one module per family; found by scanning this folder."""
