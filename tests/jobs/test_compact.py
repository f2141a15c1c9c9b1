"""Compact versions: built beside the full ones, searched, verified, calibrated, explained and promoted like them."""

import numpy as np
import pytest

from pfstore.errors import ConflictError, ContractError, NotFoundError, SourceError
from pfstore.features import Floats
from pfstore.fusion import Fuser, compacted, load_model, random_model
from pfstore.gallery import galleries, models, runs, searching, thresholds
from pfstore.gallery.database import Connection, Database
from pfstore.gallery.galleries import Strategy, Version
from pfstore.jobs import explaining
from pfstore.jobs.backfill import backfill, dry_run
from pfstore.jobs.contracts import contract_of
from pfstore.jobs.summary import Summary
from tests.memory import MemorySource, batch_of, people

SUBJECTS = people(40, dimension=12)
BLOCKS = 3


@pytest.fixture
def fuser(connection: Connection) -> Fuser:
    made = random_model(12, experts=5, selected=BLOCKS)
    models.register(connection, made, "m")
    return made


def _filled(
    connection: Connection, fuser: Fuser, source: MemorySource | None = None, *, compact: bool = False
) -> Summary:
    chosen = source or MemorySource(SUBJECTS)
    return backfill(connection, chosen, fuser, gallery="staff", source_name="memory", compact=compact)


def _stored(connection: Connection, version: Version) -> dict[str, Floats]:
    query = "SELECT subject_id, template, coarse, residual FROM pfstore.templates WHERE version_id = %s"
    rows = connection.execute(query, (version.version_id,)).fetchall()
    assert all((coarse, residual) == (None, None) for _, _, coarse, residual in rows)
    return {subject: template.to_numpy().astype(np.float32) for subject, template, _, _ in rows}


@pytest.mark.parametrize("strategy", ["media", "set"])
def test_templates_are_sums_of_the_blocks(connection: Connection, fuser: Fuser, strategy: Strategy) -> None:
    summary = backfill(
        connection,
        MemorySource(SUBJECTS),
        fuser,
        gallery="staff",
        source_name="memory",
        strategy=strategy,
        compact=True,
    )
    assert summary.promoted
    version = galleries.version(connection, "staff")
    assert (version.compact, version.blocks, version.template_dimension) == (True, 1, 12)
    assert version.as_dict()["compact"] is True
    batch = batch_of(SUBJECTS)
    if strategy == "media":
        fused = fuser.fuse_media(batch.features, batch.media_offsets, batch.subject_offsets)
    else:
        fused = fuser.fuse(batch.features, batch.set_offsets, "gallery")
    assert fused.shape == (40, BLOCKS, 12)
    sums = fused.sum(axis=1)
    stored = _stored(connection, version)
    for subject, expected in zip(SUBJECTS, sums / np.linalg.norm(sums, axis=1, keepdims=True), strict=True):
        np.testing.assert_allclose(stored[subject], expected, atol=1e-3)


def test_searching_verifying_and_explaining(connection: Connection, fuser: Fuser) -> None:
    _filled(connection, fuser, compact=True)
    version = galleries.version(connection, "staff")
    batch = batch_of(SUBJECTS)
    loaded = models.fuser_of(connection, version)
    assert (loaded.digest, loaded.blocks) == (fuser.digest, 1)
    probes = searching.probe_templates(loaded, version, batch.features, batch.set_offsets)
    np.testing.assert_array_equal(probes, compacted(fuser).templates(batch.features, batch.set_offsets))
    stored = _stored(connection, version)
    scores = probes @ np.stack(list(stored.values())).T
    subjects = list(stored)
    for subject, own, found in zip(SUBJECTS, scores, searching.search(connection, version, probes, top=3), strict=True):
        best = np.argsort(-own)[:3]
        assert found[0].subject == subject
        assert [one.subject for one in found] == [subjects[number] for number in best]
        np.testing.assert_allclose([one.score for one in found], own[best], atol=2e-3)
    score = searching.verify(connection, version, "s0003", probes[3])
    assert score == pytest.approx(float(scores[3, subjects.index("s0003")]), abs=2e-3)
    assert thresholds.stored(connection, version)
    told = explaining.explain(connection, MemorySource(SUBJECTS), version, "s0003", source_name="memory")
    assert told.same
    assert told.cosine == pytest.approx(1, abs=1e-5)
    assert all(len(frame["weights"]) == 1 for frame in told.as_dict()["frames"])


def test_templates_of_the_other_form_are_refused(connection: Connection, fuser: Fuser) -> None:
    _filled(connection, fuser, compact=True)
    version = galleries.version(connection, "staff")
    batch = batch_of(SUBJECTS)
    probes = searching.probe_templates(fuser, version, batch.features, batch.set_offsets)
    with pytest.raises(ContractError, match="36 values"):
        next(searching.search(connection, version, probes))


def test_it_is_built_beside_the_full_version(connection: Connection, fuser: Fuser) -> None:
    full = _filled(connection, fuser)
    compact = _filled(connection, fuser, compact=True)
    assert (full.version, compact.version) == (1, 2)
    assert (full.promoted, compact.promoted, compact.active) == (True, False, 1)
    assert compact.counts.written == 40
    first, second = galleries.versions(connection, "staff")
    assert (first.compact, first.blocks, first.scanned) == (False, BLOCKS, "coarse")
    assert (second.compact, second.blocks, second.scanned) == (True, 1, "template")
    assert models.fuser_of(connection, first).blocks == BLOCKS
    assert galleries.promote(connection, "staff", 2).compact
    # Each form goes on with its own version.
    again = _filled(connection, fuser, compact=True)
    assert (again.version, again.counts.unchanged) == (2, 40)
    again = _filled(connection, fuser)
    assert (again.version, again.counts.unchanged) == (1, 40)
    assert not galleries.rollback(connection, "staff").compact


def test_messages_name_the_command_that_goes_on_with_it(connection: Connection, fuser: Fuser) -> None:
    backfill(connection, MemorySource(SUBJECTS), fuser, gallery="staff", source_name="memory", compact=True, limit=5)
    with pytest.raises(NotFoundError, match="run `pfstore backfill staff --compact`$"):
        galleries.version(connection, "staff")
    with pytest.raises(ConflictError, match="run `pfstore backfill staff --compact` to its end"):
        galleries.promote(connection, "staff", 1)


def test_the_form_is_in_the_contract_whoever_gives_it(connection: Connection, fuser: Fuser) -> None:
    source = MemorySource(SUBJECTS)
    assert contract_of(source, compacted(fuser), None).compact
    assert not contract_of(source, fuser, None).compact
    _filled(connection, compacted(fuser))
    assert galleries.version(connection, "staff").compact


def test_a_run_is_not_gone_on_with_in_the_other_form(connection: Connection, database: Database, fuser: Fuser) -> None:
    left = iter(range(7))

    def stopping() -> None:
        if next(left, None) is None:
            raise SourceError("the store went away")

    with pytest.raises(SourceError):
        _filled(connection, fuser, MemorySource(SUBJECTS, reading=stopping))
    # The first connection still holds the lock that its process would have given up by dying.
    connection.close()
    with database.connect() as other:
        compact = _filled(other, fuser, compact=True)
        assert (compact.resumed, compact.version, compact.counts.written) == (False, 2, 40)
        full = _filled(other, fuser)
        assert (full.resumed, full.version, full.counts.written) == (True, 1, 40)
        assert [run.state for run in runs.listed(other)] == ["done", "done"]
        assert other.execute("SELECT count(DISTINCT plan) FROM pfstore.runs").fetchone() == (2,)


def test_a_model_of_one_block_is_refused_before_anything_is_made(connection: Connection) -> None:
    average = load_model("average")
    models.register(connection, average, "average")
    with pytest.raises(ContractError, match="average has one block already"):
        _filled(connection, average, compact=True)
    assert galleries.names(connection) == []
    with pytest.raises(ContractError, match="average has one block already"):
        dry_run(MemorySource(SUBJECTS), average, gallery="staff", compact=True)


def test_a_dry_run_counts_what_a_run_counts(connection: Connection, fuser: Fuser) -> None:
    dry = dry_run(MemorySource(SUBJECTS), fuser, gallery="staff", compact=True)
    assert dry.counts == _filled(connection, fuser, compact=True).counts
