"""How features are written in a column: a small grammar of encodings and what decodes them."""

from pfstore.sources.encodings.encoding import Decoded, Encoding, parse_encoding
from pfstore.sources.encodings.values import Undecodable

__all__ = ["Decoded", "Encoding", "Undecodable", "parse_encoding"]
