"""How a model is divided over GPUs: legal layouts and per-rank shapes."""
