"""Search over scenarios: sweeps, Pareto fronts, sensitivities, recommendations."""
