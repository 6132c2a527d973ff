"""Money and energy per token."""
