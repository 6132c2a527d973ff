"""Call graphs: one file each. Adding a graph is adding a file that defines ``GRAPH``."""
