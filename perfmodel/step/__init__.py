"""One engine step: any mix of prefill and decode tokens."""
