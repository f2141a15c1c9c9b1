"""What a worker counts, for Prometheus where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TypeAlias

from pfstore.errors import ConfigError
from pfstore.gallery.runs import Counts

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Result: TypeAlias = Literal["done", "retried", "failed", "handed_back"]

SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)
"""Upper bounds of the times that a shard may take."""


class Meter:
    """Is told what a worker does, and keeps nothing of it."""

    def shard(self, result: Result, counts: Counts, seconds: float) -> None:
        """Count a shard: what became of it, and of one that was done what was in it and how long it took."""

    def succeeded(self, gallery: str) -> None:
        """Note that a run of a gallery has come to its end."""

    def jobs(self, counts: Mapping[str, int]) -> None:
        """Note how many jobs of each status there are."""

    def up(self, is_up: bool) -> None:
        """Note whether the worker reaches the gallery database."""

    def close(self) -> None:
        """Serve nothing more."""


class Prometheus(Meter):
    """Serves what it is told at http://host:port/metrics."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """Begin to serve. Raises ConfigError where the package is missing or the port is taken."""
        try:
            from prometheus_client import CollectorRegistry, start_http_server
        except ModuleNotFoundError:
            raise ConfigError("metrics need the package prometheus-client: pip install 'pfstore[metrics]'") from None
        registry = CollectorRegistry()
        self._make(registry)
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise ConfigError(f"metrics cannot be served at {host}:{port}: {error.strerror or error}") from None

    def _make(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._shards = Counter("pfstore_shards", "Shards by what became of them.", ["result"], registry=registry)
        self._features = Counter("pfstore_features", "Features read in shards that were done.", registry=registry)
        self._subjects = Counter("pfstore_subjects", "Subjects seen in shards that were done.", registry=registry)
        self._seconds = Histogram(
            "pfstore_shard_seconds", "Seconds that a shard took.", buckets=SECONDS, registry=registry
        )
        self._jobs = Gauge("pfstore_jobs", "Jobs in the queue by status.", ["status"], registry=registry)
        self._success = Gauge(
            "pfstore_last_success_timestamp_seconds",
            "When this worker last brought a run of the gallery to its end.",
            ["gallery"],
            registry=registry,
        )
        self._up = Gauge("pfstore_worker_up", "Whether the gallery database is reached.", registry=registry)

    def shard(self, result: Result, counts: Counts, seconds: float) -> None:
        """Count a shard."""
        self._shards.labels(result).inc()
        if result == "done":
            self._features.inc(counts.read)
            self._subjects.inc(counts.seen)
            self._seconds.observe(seconds)

    def succeeded(self, gallery: str) -> None:
        """Note the time."""
        self._success.labels(gallery).set_to_current_time()

    def jobs(self, counts: Mapping[str, int]) -> None:
        """Note how many jobs there are."""
        for status, count in counts.items():
            self._jobs.labels(status).set(count)

    def up(self, is_up: bool) -> None:
        """Note it."""
        self._up.set(is_up)

    def close(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
