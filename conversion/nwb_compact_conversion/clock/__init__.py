"""The stimulus computer's clock put on the recording's: marks of onsets, and the line that pairs them with the log."""
