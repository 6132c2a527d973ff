"""Latency of kernel families: one file per family, plain formulas of shapes and device facts.

A formula names what is physical (waves, operand feed, caches, fixed costs); its few rates are
fitted by `perfmodel.calibrate`. Nothing here reads a measured table.
"""
