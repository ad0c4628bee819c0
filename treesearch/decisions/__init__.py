"""Decisions from the probabilities of a tree: audits, cascades, calibration, guarantees."""
