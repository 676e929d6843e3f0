"""The engine `"openvino"` against TensorFlow's, its bytes, and its cache of converted networks."""

import functools
import os
import queue
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from test_transform import compare_ways, mixed_sizes

from vae_aug import VAEAugment
from vae_aug.config import AugmentConfig, ModelConfig
from vae_aug.engines import openvino as module
from vae_aug.engines.engine import TensorFlowEngine
from vae_aug.engines.openvino import OpenVINOEngine
from vae_aug.errors import EngineError
from vae_aug.model.checkpoint import load_checkpoint
from vae_aug.model.fields import PACKED, SQUARE
from vae_aug.model.vae import VAE
from vae_aug.phantoms.phantom import make_phantom

operations = module.openvino.opset13

IMAGES = tf.random.stateless_uniform([5, 32, 32, 1], [3, 3])
ROUNDING = 1e-3  # which a network of random weights amplifies
SEEDS = tf.reshape(tf.range(10), [5, 2])
SAMPLE = {"mode": "sample", "seed": 1, "detail": 0.5}


@pytest.fixture(autouse=True, scope="module")
def shared_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vae-aug" / "openvino"


@functools.cache
def share(engine_class, network, **settings):
    """Make an engine that tests share, since to make one takes seconds."""
    return engine_class(network, AugmentConfig(**settings))


def check_against_tensorflow(network, mode, seed):
    settings = {"mode": mode, "seed": seed, "detail": 0.5}
    expected = share(TensorFlowEngine, network, **settings)(IMAGES, SEEDS)
    computed = share(OpenVINOEngine, network, **settings)(IMAGES, SEEDS)
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(computed, expected, atol=ROUNDING)


@pytest.mark.parametrize(
    ("mode", "seed"),
    [
        ("denoise", None),
        ("sample", 1),
        ("interpolate", None),
        pytest.param("interpolate", 1, marks=pytest.mark.slow),
    ],
)
def test_a_vector_computes_what_tensorflow_computes(short_vae, mode, seed):
    check_against_tensorflow(short_vae, mode, seed)


@pytest.mark.parametrize(
    ("mode", "seed"), [("sample", 1), pytest.param("interpolate", None, marks=pytest.mark.slow)]
)
def test_a_ladder_computes_what_tensorflow_computes(tiny_ladder, mode, seed):
    check_against_tensorflow(tiny_ladder, mode, seed)


@pytest.mark.parametrize(("mode", "seed"), [("sample", 1), ("interpolate", None)])
def test_transformations_are_what_tensorflow_computes(varied_ladder, mode, seed):
    settings = AugmentConfig(mode=mode, seed=seed)
    images = tf.random.stateless_uniform([3, SQUARE, SQUARE, 1], [3, 3])
    expected = TensorFlowEngine(varied_ladder, settings)(images, SEEDS[:3])
    computed = OpenVINOEngine(varied_ladder, settings)(images, SEEDS[:3])
    assert computed.shape == (3, PACKED) and np.ptp(expected[:, :-1]) > 0.01
    np.testing.assert_allclose(computed, expected, atol=3 * ROUNDING)


def test_transformations_are_applied_alike_in_every_way(varied_ladder):
    augment = VAEAugment(varied_ladder, seed=7, batch_size=4, engine="openvino")
    compare_ways(augment)
    reference = VAEAugment(varied_ladder, seed=7)
    for element in mixed_sizes()[0]:
        ours, theirs = (one(element)["image"].numpy().astype(int) for one in (augment, reference))
        assert np.abs(ours - theirs).mean() < 0.02 * np.ptp(theirs)


def test_a_seeded_image_has_the_same_bits_in_any_batch(tiny_ladder):
    engine = share(OpenVINOEngine, tiny_ladder, **SAMPLE)
    whole = engine(IMAGES, SEEDS)
    alone = tf.concat([engine(IMAGES[i : i + 1], SEEDS[i : i + 1]) for i in range(5)], 0)
    np.testing.assert_array_equal(whole, alone)


def test_no_image(short_vae):
    engine = share(OpenVINOEngine, short_vae, **SAMPLE)
    assert engine(IMAGES[:0], SEEDS[:0]).shape == (0, 32, 32, 1)


def test_sizes_that_follow_each_other(tiny_ladder):
    engine, reference = (
        share(kind, tiny_ladder, **SAMPLE) for kind in (OpenVINOEngine, TensorFlowEngine)
    )
    for height, width in [(32, 32), (33, 70), (32, 32)]:
        images = tf.random.stateless_uniform([2, height, width, 1], [height, width])
        expected = reference(images, SEEDS[:2])
        np.testing.assert_allclose(engine(images, SEEDS[:2]), expected, atol=ROUNDING)


def test_sizes_are_compiled_for_only_where_few_can_be(tiny_ladder, monkeypatch):
    compiled = []
    make_requests = module.make_requests

    def note(model, precision, shapes):
        compiled.append(dict(shapes)["images:0"][:2] if shapes else None)
        return make_requests(model, precision, shapes)

    monkeypatch.setattr(module, "make_requests", note)
    engine = OpenVINOEngine(tiny_ladder, AugmentConfig(**SAMPLE))
    for height, width in [(32, 48), (33, 48), (32, 50), (48, 32), (32, 48), (41, 57)]:
        engine(tf.zeros([1, height, width, 1]), SEEDS[:1])
    assert compiled == [(32, 48), None, (48, 32)]


def test_calls_at_once_share_the_processor_and_nothing_else(tiny_ladder):
    engine = share(OpenVINOEngine, tiny_ladder, **SAMPLE)
    sides = [32, 35, 48] * 4
    images = [
        tf.random.stateless_uniform([5, side, 32, 1], [side, i]) for i, side in enumerate(sides)
    ]
    expected = [engine(image, SEEDS).numpy() for image in images]
    with ThreadPoolExecutor(4) as pool:
        computed = list(pool.map(lambda image: engine(image, SEEDS).numpy(), images))
    for one, other in zip(computed, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_failure_takes_no_request_away(monkeypatch):
    class Broken:
        def start_async(self, inputs):
            assert inputs["images:0"].shape == (1, 4, 4, 1)

        def wait(self):
            raise RuntimeError("broken")

    idle = queue.SimpleQueue()
    idle.put(Broken())
    idle.put(Broken())
    monkeypatch.setattr(module, "make_requests", lambda *_: idle)
    pixels = operations.parameter([-1, 4, 4, 1], np.float32)
    pixels.output(0).set_names({"images:0"})
    model = module.openvino.Model([operations.relu(pixels)], [pixels])
    infer = module.Inference(model, ["images:0"], whole=False, precision="f32")
    with pytest.raises(RuntimeError, match="broken"):
        infer(np.zeros([5, 4, 4, 1], np.float32))
    assert idle.qsize() == 2


def test_requests_go_with_what_made_them():
    pixels = operations.parameter([-1, 4, 4, 1], np.float32)
    pixels.output(0).set_names({"images:0"})
    model = module.openvino.Model([operations.relu(pixels)], [pixels])
    infer = module.Inference(model, ["images:0"], whole=False, precision="f32")
    assert infer(np.ones([2, 4, 4, 1], np.float32)).all()
    requests = weakref.ref(infer.get_requests)
    del infer
    assert requests() is None


FIRST_CALLS = """
import sys, threading
import numpy as np
import openvino
import openvino.opset13 as ops
import vae_aug.engines.openvino

sys.setswitchinterval(1e-6)
pixels = ops.parameter([1, 64, 64, 1], np.float32)
compiled = openvino.Core().compile_model(openvino.Model([ops.relu(pixels)], [pixels]), "CPU")
together = threading.Barrier(16)

def call(request):
    together.wait()
    request.infer([np.ones([1, 64, 64, 1], np.float32)])

requests = [compiled.create_infer_request() for _ in range(16)]
threads = [threading.Thread(target=call, args=[request]) for request in requests]
for part in (threading.Thread.start, threading.Thread.join):
    for thread in threads:
        part(thread)
"""


def test_first_calls_at_once_do_not_wait_for_each_other():
    # Without the look at a tensor that the module takes, one process in three hangs.
    subprocess.run([sys.executable, "-c", FIRST_CALLS], check=True, timeout=120)


def test_every_way_through_a_dataset_gives_the_same_bytes(short_vae):
    augment = VAEAugment(short_vae, engine="openvino", seed=4, guard="off", batch_size=3)
    images = tf.cast(255 * tf.random.stateless_uniform([7, 40, 30, 1], [1, 2]), tf.uint8)
    dataset = tf.data.Dataset.from_tensor_slices({"image": images})
    one_by_one = [e["image"].numpy() for e in dataset.map(augment)]
    batched = [e["image"].numpy() for e in dataset.batch(4).map(augment).unbatch()]
    applied = [e["image"].numpy() for e in dataset.apply(augment)]
    eager = augment({"image": images})["image"].numpy()
    np.testing.assert_array_equal(batched, one_by_one)
    np.testing.assert_array_equal(eager, one_by_one)
    np.testing.assert_array_equal(applied, one_by_one)
    assert (eager != images.numpy()).any()


def test_a_network_is_converted_once(short_vae, cache_dir, monkeypatch):
    config = AugmentConfig(seed=1)
    first = OpenVINOEngine(short_vae, config)(IMAGES, SEEDS)
    assert sorted(path.suffix for path in cache_dir.iterdir()) == [".bin", ".xml"]
    monkeypatch.setattr(module.openvino, "convert_model", None)
    np.testing.assert_array_equal(OpenVINOEngine(short_vae, config)(IMAGES, SEEDS), first)


@pytest.mark.usefixtures("cache_dir")
def test_a_network_is_converted_by_way_of_a_file(short_vae, monkeypatch):
    monkeypatch.setattr(module, "FROM_MEMORY", False)
    settings = AugmentConfig(mode="denoise")
    expected = TensorFlowEngine(short_vae, settings)(IMAGES, SEEDS)
    computed = OpenVINOEngine(short_vae, settings)(IMAGES, SEEDS)
    np.testing.assert_allclose(computed, expected, atol=ROUNDING)


def test_another_network_is_not_taken_from_the_cache(short_vae, cache_dir):
    OpenVINOEngine(short_vae, AugmentConfig(seed=1))(IMAGES, SEEDS)
    OpenVINOEngine(short_vae, AugmentConfig(seed=1, factor=2))(IMAGES, SEEDS)
    assert len(list(cache_dir.glob("*.xml"))) == 2


def test_a_cache_that_cannot_be_written_is_done_without(short_vae, tmp_path, monkeypatch, logged):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    OpenVINOEngine(short_vae, AugmentConfig(seed=1))(IMAGES, SEEDS)
    assert "converted again next time" in logged[0].getMessage()


def tell_of_processor(monkeypatch, *abilities):
    class Core(module.openvino.Core):
        def get_property(self, device, name):
            return list(abilities)

    monkeypatch.setattr(module.openvino, "Core", Core)


def test_bfloat16_is_refused_where_the_processor_has_none(short_vae, monkeypatch):
    tell_of_processor(monkeypatch, "FP32", "INT8")
    with pytest.raises(EngineError, match=r"\(AVX512_BF16 or AMX\).* Choose engine='openvino'"):
        VAEAugment(short_vae, engine="openvino-bfloat16")
    VAEAugment(short_vae, engine="openvino")


needs_bfloat16 = pytest.mark.skipif(
    "BF16" not in module.openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this processor has no bfloat16",
)


@needs_bfloat16
def test_bfloat16_is_near_and_the_same_in_any_batch(tiny_ladder):
    engine = OpenVINOEngine(tiny_ladder, AugmentConfig(**SAMPLE, engine="openvino-bfloat16"))
    expected = share(TensorFlowEngine, tiny_ladder, **SAMPLE)(IMAGES, SEEDS).numpy()
    batch = engine(IMAGES, SEEDS).numpy()
    assert 1e-5 < np.abs(batch - expected).max() / np.ptp(expected) < 0.1
    alone = [engine(IMAGES[i : i + 1], SEEDS[i : i + 1])[0] for i in range(len(IMAGES))]
    np.testing.assert_array_equal(alone, batch)


@pytest.fixture(scope="module")
def vector():
    return load_checkpoint("vector")  # trained: random weights amplify what bits are missing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "mode", "detail"),
    [
        pytest.param("openvino-bfloat16", "denoise", 0, marks=needs_bfloat16),
        # The one whose early part has fewer bits too.
        pytest.param("openvino-bfloat16", "sample", 1, marks=needs_bfloat16),
    ],
)
def test_fewer_bits_are_as_near_as_promised(vector, engine, mode, detail):
    pictures = [make_phantom(kind, seed=100).image for kind in ("head_mr", "abdomen_ct")]
    images = tf.cast(tf.stack(pictures), tf.float32) / 255.0
    seeds = SEEDS[:2]
    config = AugmentConfig(mode=mode, detail=detail, engine=engine)
    expected = TensorFlowEngine(vector, config)(images, seeds)
    engine = OpenVINOEngine(vector, config)
    batch = engine(images, seeds)
    psnr = -10 * np.log10(np.mean((batch - expected) ** 2))
    assert (50 if config.engine == "openvino-bfloat16" else 38) < psnr < 90
    alone = [engine(images[i : i + 1], seeds[i : i + 1])[0] for i in range(2)]
    np.testing.assert_array_equal(alone, batch)


@pytest.mark.parametrize(
    "encoder", ["efficientnet-lite1", pytest.param("efficientnet-b1", marks=pytest.mark.slow)]
)
def test_a_network_in_two_parts_computes_what_it_did(encoder, monkeypatch):
    network = VAE(ModelConfig(encoder=encoder, image_size=64, decoder_repeats=1))
    graphs = []
    keep = module.keep_model
    monkeypatch.setattr(module, "keep_model", lambda graph: graphs.append(graph) or keep(graph))
    images = tf.random.stateless_uniform([3, 64, 64, 1], [1, 1])
    expected = OpenVINOEngine(network, AugmentConfig(mode="denoise"))(images, SEEDS[:3])
    early, late = graphs[0].cut_at(graphs[0].find_layer(module.EARLY_END))
    parts = [
        module.Inference(keep(part), part.inputs, whole=False, precision="f32")
        for part in (early, late)
    ]
    assert parts[0](images.numpy()).shape == (3, 8, 8, 40)
    np.testing.assert_allclose(module.chain(parts)(images.numpy()), expected, atol=1e-6)


REPORTING = """
import tensorflow as tf
from vae_aug import VAEAugment
from vae_aug.config import ModelConfig
from vae_aug.model.vae import VAE

config = ModelConfig(encoder="efficientnet-lite1", image_size=32, latent_dim=16)
augment = VAEAugment(VAE(config), engine="openvino", seed=1)
augment({"image": tf.zeros([32, 32, 1], tf.uint8)})

from openvino.tools.ovc import telemetry_utils
print(telemetry_utils.tm.__name__)
"""


@pytest.mark.slow
def test_nobody_is_told_of_a_conversion(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("CI", "XDG"))}
    finished = subprocess.run(
        [sys.executable, "-c", REPORTING],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        check=True,
        text=True,
    )
    # Only this: the package that reports keeps its number of the user in ~/intel.
    assert finished.stdout.split() == ["openvino.tools.ovc.telemetry_stub"]
    assert not (tmp_path / "intel").exists()


def test_a_device_is_refused(short_vae):
    with pytest.raises(ValueError, match="engine='openvino' runs on the CPU; got device='/GPU:0'"):
        VAEAugment(short_vae, engine="openvino", device="/GPU:0")


def test_serialising_is_refused_by_tensorflow(short_vae):
    augment = VAEAugment(short_vae, engine="openvino", seed=1)
    dataset = tf.data.Dataset.from_tensors({"image": tf.zeros([8, 8, 1], tf.uint8)}).map(augment)
    graph = tf.raw_ops.DatasetToGraphV2(
        input_dataset=dataset._variant_tensor,
        external_state_policy=0,
        strip_device_assignment=True,
    )
    assert b"PyFunc" in graph.numpy()  # a name in this process's memory, of no use in another
