"""Work of each kernel: FLOPs, bytes by tensor class, messages. Formulas only, no time."""
