"""What each fitted neuron computes: its students asked about made images, taken apart, and shown the images they answer most.

One direction: stimuli -> answers -> physiology and preference; students -> dissection, consolidation, early filters; students -> images
that drive or silence them. Each room gives `tables.Table`s, which `nwb_interpretation` keeps in the run and the report draws.
"""
