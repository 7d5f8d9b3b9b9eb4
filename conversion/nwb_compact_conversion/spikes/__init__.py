"""From voltage to units: filtering, sorting or thresholds, quality and curation."""
