"""Evaluation: the encoder, the frozen and the joint evaluator, comparison and statistics."""
