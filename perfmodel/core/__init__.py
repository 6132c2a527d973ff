"""Nomenclature, formulas, formats, registries and errors that every room uses."""
