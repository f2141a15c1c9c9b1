"""Made-up legacy stores of any size, for the demo, tests and benchmarks; the same seed gives the same store."""

from pfstore.synthetic.damage import Damage
from pfstore.synthetic.population import Faces, Population
from pfstore.synthetic.probes import KnownProbes, known_probes, write_probes
from pfstore.synthetic.stores import TABLE, Written, write_hdf5, write_sql, write_sqlite

__all__ = [
    "TABLE",
    "Damage",
    "Faces",
    "KnownProbes",
    "Population",
    "Written",
    "known_probes",
    "write_hdf5",
    "write_probes",
    "write_sql",
    "write_sqlite",
]
