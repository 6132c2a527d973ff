"""Measurements on real devices: Triton kernels, the mini-engine, and the clocks that time them.

The only home of torch and triton. Imports `perfmodel`; nothing imports it.
"""
