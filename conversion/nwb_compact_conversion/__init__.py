"""Raw recordings, published data sets and stimuli, to one session file."""
