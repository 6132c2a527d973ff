"""From work to time, energy and link occupancy on one machine."""
