"""Objectives for training a hierarchical softmax, alone or several together."""
