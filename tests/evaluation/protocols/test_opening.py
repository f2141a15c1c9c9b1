"""Protocol files: every protocol is opened as its function opens it, and a mistake is answered with the nearest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pfstore.errors import ConfigError, InputError, PfstoreError
from pfstore.evaluation.protocols.experiment import Experiment
from pfstore.evaluation.protocols.opening import load_protocol
from tests.evaluation.protocols.reading import collected, frames, store
from tests.evaluation.protocols.test_bts import written as write_bts
from tests.evaluation.protocols.test_dronesurf import in_folders
from tests.evaluation.protocols.test_ijb import GALLERY1, GALLERY2, INDEX, PAIRS, PROBES
from tests.evaluation.protocols.test_split import saved


def protocol(folder: Path, text: str, **given: Any) -> Experiment:
    path = folder / "protocol.toml"
    path.write_text(text)
    return load_protocol(path, **given)


def test_hdf5(tmp_path: Path) -> None:
    content = {f"{one}/{kind}": frames(1, seed) for seed, one in enumerate("ab") for kind in ("gallery/0", "probe_0")}
    store(tmp_path / "data/features_all.hdf5", content)
    found = protocol(tmp_path, '[protocol]\nkind = "hdf5"\nfeatures = "data"\nextractor = "net"')
    assert (found.extractor, found.facts["probes"]) == ("net", 2)


def test_bts(tmp_path: Path) -> None:
    write_bts(tmp_path)
    text = '[protocol]\nkind = "bts"\nfeatures = "features"\nfolder = "protocol"\ncondition = "face_incl_ctrl"'
    assert protocol(tmp_path, text).name == "BTS3.1 face_incl_ctrl"
    csvs = 'probes = "{0}/Probe_BTS_briar-rd_ALL.csv"\ngalleries = ["{0}/Gallery1.csv"]'
    text = f'[protocol]\nkind = "bts"\nfeatures = "features"\n{csvs.format("protocol/analysis_main")}'
    assert [one.name for one in protocol(tmp_path, text).galleries] == ["Gallery1"]


def test_ijb(tmp_path: Path) -> None:
    np.save(tmp_path / "net.npy", frames(7))
    texts = {"i.txt": INDEX, "p.txt": PAIRS, "a_G1.csv": GALLERY1, "a_G2.csv": GALLERY2, "p.csv": PROBES}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    files = 'features = "net.npy"\nindex = "i.txt"'
    pairs = protocol(tmp_path, f'[protocol]\nkind = "ijb-11"\n{files}\npairs = "p.txt"\nsubjects = ["p.csv"]')
    assert pairs.pairs is not None
    assert collected(pairs.galleries[0].probes).subjects["5"] == "300"
    galleries = 'galleries = ["a_G1.csv", "a_G2.csv"]\nprobes = "p.csv"'
    assert len(protocol(tmp_path, f'[protocol]\nkind = "ijb-1n"\n{files}\n{galleries}').galleries) == 2


def test_dronesurf(tmp_path: Path) -> None:
    in_folders(tmp_path / "features")
    text = '[protocol]\nkind = "dronesurf"\nfeatures = "features"\nscenario = "passive"\nwise = "frame"'
    assert protocol(tmp_path, text).name == "DroneSURF passive, frame-wise"


def test_split(tmp_path: Path) -> None:
    saved(tmp_path / "x.npz", [4] * 30)
    text = """[protocol]
kind = "split"
source = { path = "${FOLDER}x.npz", extractor = "net" }
parts = { train = 0.5, validation = 0.0, test = 0.5, seed = 3 }
draws = 2
media = [1, 2]
"""
    found = protocol(tmp_path, text, environment={"FOLDER": "./"})
    assert found.facts["parts"] == {"train": 0.5, "validation": 0.0, "test": 0.5, "seed": 3}
    assert (found.facts["media_drawn"], len(found.galleries), found.extractor) == ([1, 2], 2, "net")


SOURCE = 'source = { path = "x.npz", extractor = "net" }'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has one table, \[protocol\], this one has none"),
        ("[protocols]\n", r"has one table, \[protocol\], this one has protocols"),
        ("protocol = 3", r"has one table"),
        ("[protocol", "not valid TOML"),
        ("[protocol]\n", "there is no protocol ''"),
        ('[protocol]\nkind = ["bts"]', r"there is no protocol .*; did you mean bts"),
        ('[protocol]\nkind = "ijb-1-1"', "there is no protocol 'ijb-1-1'; did you mean ijb-1"),
        ('[protocol]\nkind = "hdf5"', "protocol.features: Field required"),
        ('[protocol]\nkind = "hdf5"\nfeatuers = "x"', r"featuers: unknown key; did you mean features\? \(known: dim"),
        ('[protocol]\nkind = "bts"\nfeatures = "x"\nallow_missing = "perhaps"', "protocol.allow_missing: .*boolean"),
        ('[protocol]\nkind = "dronesurf"\nfeatures = "x"\nscenario = "activ"', "scenario: Input should be 'active' or"),
        (f'[protocol]\nkind = "split"\n{SOURCE}\nmedia = [1]', "protocol.media"),
        (f'[protocol]\nkind = "split"\n{SOURCE}\nparts = {{ trian = 1.0 }}', "parts.trian: unknown key; did you mean"),
        ('[protocol]\nkind = "split"\nsource = { pth = "x" }', r"source.pth: unknown key; did you mean path\?"),
        ('[protocol]\nkind = "split"\nsource = { path = "x.npz" }', r'set extractor = "…"'),
        ('[protocol]\nkind = "hdf5"\nfeatures = "${NO}"', "protocol.features: the environment variable NO is not set"),
    ],
)  # fmt: skip
def test_mistakes_are_answered_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        protocol(tmp_path, text, environment={})


def test_what_a_protocol_refuses_is_said_as_it_says_it(tmp_path: Path) -> None:
    saved(tmp_path / "x.npz", [4] * 3)
    with pytest.raises(InputError, match=r"parts: train 0.5, validation 0.1, test 0.2 sum to 0.8"):
        protocol(tmp_path, f'[protocol]\nkind = "split"\n{SOURCE}\nparts = {{ train = 0.5 }}')
    with pytest.raises(PfstoreError, match="no such file or folder"):
        protocol(tmp_path, '[protocol]\nkind = "hdf5"\nfeatures = "nowhere"')
    with pytest.raises(ConfigError, match=r"nowhere.toml: no such protocol file"):
        load_protocol(tmp_path / "nowhere.toml")
