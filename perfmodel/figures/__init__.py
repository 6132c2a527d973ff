"""Columns to plotly figures, shared by the app, the command line and notebooks."""
