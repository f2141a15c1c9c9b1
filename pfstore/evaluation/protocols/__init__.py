"""The field's protocols as data: which references are compared with which probes."""
