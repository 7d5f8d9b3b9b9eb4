"""Accurate and compact models of every recorded visual neuron, from NWB and back into NWB."""

__version__ = "0.1.0"
