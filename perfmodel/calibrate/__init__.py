"""Fit physical parameters to measured tables, with covariance and coverage; no torch here."""
