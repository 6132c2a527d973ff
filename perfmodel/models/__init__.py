"""Architectures: blocks, presets, and readers of vendor configuration files."""
