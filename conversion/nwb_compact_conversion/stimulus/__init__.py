"""What was shown: the images, the stimulus computer's log, and both joined to presentations."""
