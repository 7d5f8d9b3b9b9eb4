"""Settings of the shortest fit that goes through all stages: for tests of what a fit reads and writes, not of what it finds."""

SHORTEST_FIT = """
bootstraps = 10
[teacher]
members = 1
epochs = 1
least_steps = 1
channels = 4
trunk_channels = 4
core_blocks = 1
[student]
early_filters = [3, 3]
shared_filters = [3, 3, 3]
most_late_filters = [3, 3, 3]
[distill]
images_seen = 100
views = 1
[prune]
images = 50
images_seen = 100
last_images_seen = 100
"""
