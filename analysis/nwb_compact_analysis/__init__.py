"""What was fitted, as figures and one page."""
