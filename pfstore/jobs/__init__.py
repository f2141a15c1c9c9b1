"""Work that joins sources, fusion and gallery."""
