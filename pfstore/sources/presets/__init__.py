"""What is known of the systems that hold features: one data file for each and for each generation of its schema."""

from pfstore.sources.presets.catalogue import Preset, all_presets, named
from pfstore.sources.presets.live import recognise, suggestion
from pfstore.sources.presets.resolving import resolved
from pfstore.sources.presets.showing import shown

__all__ = ["Preset", "all_presets", "named", "recognise", "resolved", "shown", "suggestion"]
