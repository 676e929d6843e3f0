"""Graphs kept on disk: the same output, nothing stale, and no start that fails for want of them."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf

from vae_aug import VAEAugment
from vae_aug.augment import transform
from vae_aug.engines import graphs
from vae_aug.engines.graphs import Graph, find_graph, keep_graph
from vae_aug.errors import CheckpointError
from vae_aug.model import checkpoint as checkpoints
from vae_aug.model.checkpoint import load_checkpoint

ELEMENT = {"image": tf.cast(tf.reshape(tf.range(32 * 32) % 251, [32, 32, 1]), tf.uint8)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, short_stages):
    """An empty cache, and a process that has opened nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget()
    return tmp_path / "cache" / "vae-aug" / "graphs"


def list_networks(folder):
    """Return the files of networks' graphs; that of what is around them is no network's."""
    return [path for path in folder.glob("*/*.graph") if path.parent.name != "transform"]


def forget():
    """Forget networks and engines, as a new process has none."""
    for shared in (
        checkpoints.load_stamped,
        checkpoints.open_stamped,
        transform.share_engine,
    ):
        shared.cache_clear()


def augment_anew(checkpoint, **settings):
    forget()
    return VAEAugment(checkpoint, **{"seed": 1, "guard": "off", **settings})(ELEMENT)["image"]


@pytest.fixture
def refuse_to_load(monkeypatch):
    """Let every network that is built fail."""

    def fail(path):
        raise AssertionError(f"{path} was loaded")

    return lambda: monkeypatch.setattr(checkpoints, "load_checkpoint", fail)


def test_a_later_start_loads_no_network_and_gives_the_same(checkpoint, refuse_to_load, folder):
    first = augment_anew(checkpoint)
    network = load_checkpoint(checkpoint)
    in_memory = VAEAugment(network, seed=1, guard="off")(ELEMENT)["image"]
    np.testing.assert_array_equal(first, in_memory)
    assert len(list_networks(folder)) == 1
    refuse_to_load()
    np.testing.assert_array_equal(augment_anew(checkpoint), first)
    # Neither the seed nor the guard is in the graph.
    augment_anew(checkpoint, seed=2, guard="paste")


@pytest.mark.parametrize(
    "other",
    [
        {"factor": 0.5},
        pytest.param({"detail": 0.0}, marks=pytest.mark.slow),
        pytest.param({"mode": "interpolate"}, marks=pytest.mark.slow),
    ],
)
def test_other_settings_have_another_graph(checkpoint, other, refuse_to_load):
    augment_anew(checkpoint)
    refuse_to_load()
    with pytest.raises(AssertionError, match="was loaded"):
        augment_anew(checkpoint, **other)


@pytest.mark.slow
def test_a_cache_of_descriptions_needs_no_network_either(checkpoint, tmp_path, refuse_to_load):
    dataset = tf.data.Dataset.from_tensors(ELEMENT)

    def cache(name):
        forget()
        cached = VAEAugment(checkpoint, seed=1, guard="off").cache(dataset, tmp_path / name)
        return next(iter(cached))["image"]

    first = cache("first")
    refuse_to_load()
    np.testing.assert_array_equal(cache("second"), first)


def test_an_altered_checkpoint_is_refused_although_its_graph_is_kept(checkpoint, tmp_path):
    altered = tmp_path / "altered.keras"
    augment_anew(checkpoint)
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    altered.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"altered\.keras"):
        augment_anew(altered)


def test_other_code_or_versions_have_another_graph(checkpoint, monkeypatch, folder):
    augment_anew(checkpoint)
    monkeypatch.setattr(graphs, "describe_versions", lambda: ("another",))
    augment_anew(checkpoint)
    assert len(list_networks(folder)) == 2


def test_a_damaged_graph_is_made_again(checkpoint, folder, logged):
    first = augment_anew(checkpoint)
    [path] = list_networks(folder)
    path.write_bytes(path.read_bytes()[:1000])
    dataset = tf.data.Dataset.from_tensors(ELEMENT)
    forget()
    # The network is loaded while the graph of `map` is being built.
    again = next(iter(dataset.map(VAEAugment(checkpoint, seed=1, guard="off"))))
    np.testing.assert_array_equal(again["image"], first)
    assert "is damaged; it is made again" in logged[0].getMessage()


def test_a_folder_that_cannot_be_written_is_done_without(checkpoint, tmp_path, monkeypatch, logged):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    augment_anew(checkpoint)
    said = logged[0].getMessage()
    assert "cannot be kept (Not a directory); the next start makes it again" in said


def test_a_user_without_a_home_directory_goes_without(checkpoint, monkeypatch, logged):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(graphs.Path, "home", fail)
    augment_anew(checkpoint)
    assert "cannot be kept" in logged[0].getMessage()


@pytest.mark.parametrize("denied", [("stat", "open", "mkdir"), ("utime",)])
def test_a_folder_of_somebody_else_s_is_no_error(
    checkpoint, denied, folder, monkeypatch, refuse_to_load
):
    first = augment_anew(checkpoint)
    # Whoever runs the tests may be allowed everything, so the refusal is played.
    for name in denied:
        monkeypatch.setattr(os, name, refuse_below(folder, getattr(os, name)))
    if "open" in denied:
        monkeypatch.setattr(io, "open", refuse_below(folder, io.open))  # what a path's methods call
    if denied == ("utime",):
        refuse_to_load()  # what can be read is used
    np.testing.assert_array_equal(augment_anew(checkpoint), first)


def refuse_below(folder, function):
    """Make a function of a path fail within a folder."""

    def call(path, *arguments, **settings):
        if str(path).startswith(str(folder)):
            raise PermissionError(13, "Permission denied", str(path))
        return function(path, *arguments, **settings)

    return call


def make_graph(value):
    """Make a graph that adds a value."""
    traced = tf.function(lambda x: {"b": x + value, "a": x}).get_concrete_function(
        tf.TensorSpec([None], tf.float32)
    )
    return Graph.of(traced)


def test_a_graph_is_read_as_it_was_written():
    graph = make_graph(2.0)
    again = Graph.unpack(graph.pack())
    assert again == graph and again.keys == ("a", "b")
    same, more = again.make_function()(tf.constant([1.0]))
    assert (float(same[0]), float(more[0])) == (1.0, 3.0)


@pytest.mark.parametrize("place", [0, 31, 32, 40, -1])
def test_a_byte_of_difference_is_seen(place):
    packed = bytearray(make_graph(2.0).pack())
    packed[place] ^= 1
    assert Graph.unpack(bytes(packed)) is None


@pytest.mark.parametrize("length", [0, 10, 32, 33])
def test_what_is_cut_off_is_seen(length):
    assert Graph.unpack(make_graph(2.0).pack()[:length]) is None


def test_what_was_not_used_for_longest_makes_room(monkeypatch):
    size = len(make_graph(0.0).pack())
    monkeypatch.setattr(graphs, "MAX_KEPT_BYTES", int(2.5 * size))
    paths = [find_graph(name, []) for name in ("first", "second", "third")]
    for age, path in zip((30, 20), paths, strict=False):
        keep_graph(path, lambda: make_graph(0.0))
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    keep_graph(paths[0], lambda: pytest.fail("it is kept"))
    keep_graph(paths[2], lambda: make_graph(0.0))
    assert [path.is_file() for path in paths] == [True, False, True]


def test_a_graph_is_not_inlined_where_it_is_called():
    """Inlined, TensorFlow would optimise it again for every size, and change floats' last bits."""
    spec = tf.TensorSpec([None], tf.float32)
    graph = Graph.of(tf.function(lambda x: x + 1.0).get_concrete_function(spec))
    call = graph.make_call()
    outer = tf.function(lambda x: call(x)[0]).get_concrete_function(spec)
    [function] = outer.graph.as_graph_def().library.function
    assert function.attr["_noinline"].b
    np.testing.assert_array_equal(outer(tf.constant([1.0])), [2.0])


def test_a_graph_in_two_parts_gives_what_the_whole_gives():
    @tf.function(autograph=False)
    def compute(x, y):
        with tf.name_scope("encoder/half_1"):  # as Keras names the second call of a layer
            half = tf.nn.relu(x)
        return half * y

    graph = Graph.of(compute.get_concrete_function(*[tf.TensorSpec([2], tf.float32)] * 2))
    early, late = graph.cut_at(graph.find_layer("half"))
    x, y = tf.constant([-1.0, 2.0]), tf.constant([3.0, 3.0])
    [half] = early.make_function()(x)
    np.testing.assert_array_equal(half, [0.0, 2.0])
    np.testing.assert_array_equal(late.make_function()(half, y)[0], [0.0, 6.0])
    assert graph.find_layer("missing") is None
