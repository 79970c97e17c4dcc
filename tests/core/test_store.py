import numpy as np
import pytest

from rl_interp.core.errors import RunError, UserError
from rl_interp.core.store import ActivationStore, StoreWriter


def write(path, values, parts=3, **options):
    with StoreWriter(path, "fc.post", {"run": "r", "step": 1}, **options) as writer:
        for rows in np.array_split(np.arange(len(values)), parts):
            writer.append(values[rows], {"episode": rows // 10, "label": rows % 2 == 0})
    return ActivationStore(path)


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(1000, 6)).astype(np.float32)


def test_what_was_written_is_read(tmp_path, values):
    store = write(tmp_path / "s", values, shard_rows=300)
    assert len(list(store.path.glob("shard-*.npy"))) == 3
    assert (len(store), store.width, store.hook) == (1000, 6, "fc.post")
    rows = np.array([999, 0, 500, 500])
    np.testing.assert_array_equal(store.read(rows), values[rows])
    np.testing.assert_array_equal(store.column("episode"), np.arange(1000) // 10)
    assert store.column("label").dtype == bool
    assert store.manifest["provenance"] == {"run": "r", "step": 1}


def test_a_spatial_point_serves_its_positions_as_rows(tmp_path):
    values = np.arange(4 * 3 * 2 * 2, dtype=np.float32).reshape(4, 3, 2, 2)
    with StoreWriter(tmp_path / "s", "conv1.post", {}) as writer:
        writer.append(values, {"episode": np.arange(4)})
    store = ActivationStore(tmp_path / "s")
    assert (len(store), store.width, store.samples) == (16, 3, 4)
    np.testing.assert_array_equal(store.read(np.array([5])), values[1, :, 0, 1][None])


def test_float16_is_refused_where_it_would_overflow(tmp_path, values):
    store = write(tmp_path / "half", values, dtype="float16")
    np.testing.assert_allclose(store.read(np.arange(10)), values[:10], rtol=1e-3)
    with pytest.raises(UserError, match=r"exceeds float16's range"):
        write(tmp_path / "big", values * 1e6, dtype="float16")
    assert not (tmp_path / "big").exists()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"name": np.array(["a"] * 4)}, "'name' is of <U1; an index holds numbers"),
        ({"when": np.zeros(4, "datetime64[s]")}, "'when' is of datetime64"),
        ({"any": np.array([1, None, 2, 3])}, "'any' is of object"),
        ({"pair": np.zeros((4, 2))}, "pair.* do not fit"),
        ({}, "do not fit"),
    ],
)
def test_an_index_that_could_not_be_read_is_not_written(tmp_path, columns, said):
    with pytest.raises(UserError, match=said), StoreWriter(tmp_path / "s", "fc.post", {}) as writer:
        writer.append(np.zeros((4, 2), np.float32), columns)
    assert list(tmp_path.iterdir()) == []


def test_adding_nothing_and_samples_without_a_shape_make_no_store_that_could_not_be_read(tmp_path):
    with StoreWriter(tmp_path / "s", "fc.post", {}, shard_rows=4) as writer:
        for rows in (0, 4, 0):
            writer.append(np.zeros((rows, 2), np.float32), {"episode": np.full(rows, np.nan, np.float16)})
    assert np.isnan(ActivationStore(tmp_path / "s").column("episode")).all()
    for shape in ((4,), (4, 0)):
        with pytest.raises(UserError, match=r"of shape \(4,"), StoreWriter(tmp_path / "t", "fc.post", {}) as writer:
            writer.append(np.zeros(shape, np.float32), {"episode": np.arange(4)})


def test_an_interrupted_collection_leaves_nothing(tmp_path, values):
    with pytest.raises(ZeroDivisionError), StoreWriter(tmp_path / "s", "fc.post", {}, shard_rows=10) as writer:
        writer.append(values, {"episode": np.zeros(1000)})
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_a_missing_or_altered_shard_is_named(tmp_path, values):
    path = write(tmp_path / "s", values, shard_rows=300).path
    shard = path / "shard-00001.npy"
    data = shard.read_bytes()
    shard.write_bytes(data[:-4] + b"\0\0\0\1")
    with pytest.raises(RunError, match=r"shard-00001.npy does not match the sha256"):
        ActivationStore(path)
    shard.unlink()
    with pytest.raises(RunError, match=r"shard-00001.npy is missing"):
        ActivationStore(path)
    with pytest.raises(RunError, match="is no activation store"):
        ActivationStore(tmp_path)


def test_an_unknown_column_is_refused(tmp_path, values):
    with pytest.raises(UserError, match=r"unknown index column 'episod'.* Did you mean 'episode'"):
        write(tmp_path / "s", values).column("episod")
