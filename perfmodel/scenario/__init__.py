"""One question, resolved and answered: the library behind estimate and explain."""
