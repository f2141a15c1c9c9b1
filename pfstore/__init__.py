"""Fused biometric templates for legacy stores of face features: read, fuse, store in pgvector, search in SQL."""

__version__ = "0.1.0"
