"""What occupies device memory, and what fits."""
