from pathlib import Path

import numpy as np
import pytest

from pfstore.errors import ModelError, NotFoundError
from pfstore.fusion import BASELINES, load_model, random_model
from pfstore.gallery import models
from pfstore.gallery.database import Connection


def test_a_model_comes_back_as_it_was(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "CHUNK", 1000)
    fuser = random_model(8, experts=3, selected=2, seed=1)
    registered = models.register(connection, fuser, "small")
    row = connection.execute("SELECT count(*), sum(length(data)) FROM pfstore.model_chunks").fetchone()
    assert row is not None
    assert row[0] > 1
    assert row[1] == registered.bytes
    features = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    offsets = np.array([0, 2, 5])
    for _ in ("from the database", "from the cache"):
        loaded = models.load(connection, registered.digest)
        assert loaded.digest == fuser.digest
        np.testing.assert_array_equal(loaded.templates(features, offsets), fuser.templates(features, offsets))


def test_registering_again_changes_nothing(connection: Connection) -> None:
    fuser = random_model(8, experts=3, selected=2, seed=1)
    assert models.register(connection, fuser, "small") == models.register(connection, fuser, "small")
    assert len(models.listed(connection)) == 1


def test_a_name_stands_for_one_model(connection: Connection) -> None:
    models.register(connection, random_model(8, experts=3, selected=2, seed=1), "small")
    with pytest.raises(ModelError, match="'small' already stands for"):
        models.register(connection, random_model(8, experts=3, selected=2, seed=2), "small")
    with pytest.raises(ModelError, match="already registered, as 'small'"):
        models.register(connection, random_model(8, experts=3, selected=2, seed=1), "other")


def test_a_damaged_model_is_not_used(connection: Connection) -> None:
    registered = models.register(connection, random_model(8, experts=3, selected=2, seed=1), "small")
    connection.execute("UPDATE pfstore.model_chunks SET data = set_byte(data, 900, 255 - get_byte(data, 900))")
    with pytest.raises(ModelError, match="'small' is damaged"):
        models.load(connection, registered.digest)


def test_a_damaged_cache_is_replaced(connection: Connection) -> None:
    registered = models.register(connection, random_model(8, experts=3, selected=2, seed=1), "small")
    models.load(connection, registered.digest)
    cached: Path = models._cache_folder() / f"{registered.digest}.safetensors"
    whole = cached.read_bytes()
    cached.write_bytes(whole[:-10])
    assert models.load(connection, registered.digest).digest == registered.digest
    assert cached.read_bytes() == whole


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_needs_no_file(connection: Connection, name: str) -> None:
    registered = models.resolve(connection, name)
    assert registered.bytes == 0
    assert models.load(connection, registered.digest).digest == load_model(name).digest


def test_an_unknown_model_names_the_nearest(connection: Connection) -> None:
    models.register(connection, random_model(8, experts=3, selected=2, seed=1), "adaface")
    with pytest.raises(NotFoundError, match="no model 'adafacee' is registered; did you mean adaface"):
        models.find(connection, "adafacee")
