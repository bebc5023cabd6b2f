"""Synthetic Helios recordings, physically modelled: persons, postures, movement, rays, sensors, failures."""

from bfrbctl.simulation.recording import SimulatedSubject, simulate_subject
from bfrbctl.simulation.settings import SimulationConfig
from bfrbctl.simulation.writing import write_raw

__all__ = ["SimulatedSubject", "SimulationConfig", "simulate_subject", "write_raw"]
