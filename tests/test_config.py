from __future__ import annotations

from pathlib import Path

import pytest

from pfstore import config
from pfstore.config import ExtractorColumn, QualityColumn
from pfstore.errors import ConfigError

GOOD = """
[database]
url = "postgresql://pf:${PF_PASSWORD}@db/faces"

[sources.hr]
url = "mysql+pymysql://reader:${HR_PASSWORD}@db/hr"
table = "face_features"
subject = ["site", "person_id"]
medium = "image_id"
feature = { column = "vec", encoding = "float32-le" }
quality = "score"
changed = "updated_at"
where = "deleted_at IS NULL"
extractor = { column = "model" }

[sources.files]
path = "features"

[galleries.staff]
source = "hr"
model = "adaface-briar"
strategy = "media"

[schedules.nightly]
gallery = "staff"
cron = "0 3 * * *"
"""
SECRETS = {"PF_PASSWORD": "p@ss/w:rd", "HR_PASSWORD": "hunter2"}


def _load(folder: Path, text: str, environment: dict[str, str] = SECRETS) -> config.Config:
    file = folder / "pfstore.toml"
    file.write_text(text)
    return config.load(file, environment)


def test_a_whole_file(tmp_path: Path) -> None:
    loaded = _load(tmp_path, GOOD)
    source = loaded.source("hr")
    assert source.subject_columns == ("site", "person_id")
    assert source.medium_columns == ("image_id",)
    assert source.quality == QualityColumn(column="score")
    assert source.extractor == ExtractorColumn(column="model")
    assert loaded.gallery("staff").strategy == "media"
    assert loaded.schedules["nightly"].removals == 0.5
    assert loaded.folder == tmp_path


def test_a_password_is_quoted_inside_a_url(tmp_path: Path) -> None:
    assert _load(tmp_path, GOOD).database.url == "postgresql://pf:p%40ss%2Fw%3Ard@db/faces"
    whole = _load(tmp_path, '[database]\nurl = "${URL}"', {"URL": "postgresql://a:b@h/x"})
    assert whole.database.url == "postgresql://a:b@h/x"
    folder = _load(tmp_path, '[database]\nurl = "embedded:${DIR}/pg"', {"DIR": "/srv/x"})
    assert folder.database.url == "embedded:/srv/x/pg"
    assert _load(tmp_path, '[database]\nurl = "embedded:$${X}"').database.url == "embedded:${X}"


def test_a_replica_is_named_as_the_primary_is(tmp_path: Path) -> None:
    assert _load(tmp_path, GOOD).database.read_url is None
    replica = GOOD.replace("[database]", '[database]\nread_url = "postgresql://pf:${PF_PASSWORD}@replica/faces"')
    loaded = _load(tmp_path, replica)
    assert loaded.database.read_url == "postgresql://pf:p%40ss%2Fw%3Ard@replica/faces"
    assert "replica" not in repr(loaded)


def test_no_secret_in_a_repr(tmp_path: Path) -> None:
    shown = repr(_load(tmp_path, GOOD))
    assert "hunter2" not in shown
    assert "p%40ss" not in shown


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("medium =", "medum =", r"sources\.hr\.medum: unknown key; did you mean medium\?"),
        ("[schedules", "[shedules", r"shedules: unknown key; did you mean schedules\?"),
        ("encoding =", "encodng =", r"sources\.hr\.feature\.encodng: unknown key; did you mean encoding\?"),
        ("${HR_PASSWORD}", "${NOWHERE}", r"sources\.hr\.url: the environment variable NOWHERE is not set"),
        ('source = "hr"', 'source = "hrr"', r"galleries\.staff\.source: no source 'hrr'; did you mean hr\?"),
        ('gallery = "staff"', 'gallery = "stuff"', r"schedules\.nightly\.gallery: no gallery 'stuff'; did you mean"),
        (
            'cron = "0',
            'removals = 2\ncron = "0',
            r"schedules\.nightly\.removals: Input should be less than or equal to 1",
        ),
        ('strategy = "media"', 'strategy = "mean"', r"galleries\.staff\.strategy: Input should be 'media' or 'set'"),
        ('table = "face_features"', "", "a database source needs either table or query"),
        ('path = "features"', 'path = "f"\ntable = "t"', "table is for databases"),
        ('path = "features"', "", "a source needs either url .* or path"),
        ('extractor = { column = "model" }', "", "needs subject, feature and extractor"),
        ("[database]", "[database", "not valid TOML"),
        ("[database]", '[database]\nread_url = "embedded:x"', r"database\.read_url: the embedded server has"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in GOOD
    with pytest.raises(ConfigError, match=said) as error:
        _load(tmp_path, GOOD.replace(before, after))
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names(tmp_path: Path) -> None:
    loaded = _load(tmp_path, GOOD)
    with pytest.raises(ConfigError, match="there is no gallery 'stuff'; did you mean staff"):
        loaded.gallery("stuff")
    with pytest.raises(ConfigError, match="there is no source 'h'"):
        loaded.source("h")


def test_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    assert config.find() is None
    assert config.load().database.url == "embedded:"
    users = tmp_path / "home" / "pfstore" / "pfstore.toml"
    users.parent.mkdir(parents=True)
    users.write_text('[database]\nurl = "embedded:users"')
    assert config.load().database.url == "embedded:users"
    (tmp_path / "pfstore.toml").write_text('[database]\nurl = "embedded:here"')
    assert config.load().database.url == "embedded:here"
    with pytest.raises(ConfigError, match="no such configuration file; `pfstore init` writes one"):
        config.load(tmp_path / "nowhere.toml")


def test_the_identity_of_a_source_is_what_it_reads(tmp_path: Path) -> None:
    before = _load(tmp_path, GOOD).source("hr").identity
    assert "hunter2" not in before
    assert _load(tmp_path, GOOD, SECRETS | {"HR_PASSWORD": "new"}).source("hr").identity == before
    filtered = GOOD.replace("deleted_at IS NULL", "deleted_at IS NULL AND site = 4")
    assert _load(tmp_path, filtered).source("hr").identity != before
    assert _load(tmp_path, GOOD.replace("db/hr", "db2/hr")).source("hr").identity != before
