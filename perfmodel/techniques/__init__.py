"""Techniques: one declarative file each, configuring the mechanisms of the model."""
