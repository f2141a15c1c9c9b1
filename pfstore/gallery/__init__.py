"""Galleries of fused templates in PostgreSQL with pgvector: kept, written, searched."""
