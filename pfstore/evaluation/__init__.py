"""Evaluation: what a fusion method is worth on a protocol of the field, with counts and intervals beside every rate."""
