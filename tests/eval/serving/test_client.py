"""The wire format: what goes through comes out the same, nothing else comes out of any bytes; the client on its own."""

import ast
import contextlib
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import msgpack
import numpy as np
import pytest
from foreact.eval.actors import PolicyActor
from foreact.eval.serving import client
from foreact.eval.serving.client import Client, ServerError, pack, unpack
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

ROOT = Path(__file__).parents[3]
arrays = hn.arrays(
    st.sampled_from(["uint8", "float32", "int64", "float64", "bool", "float16"]),
    hn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)


@settings(max_examples=20)
@given(st.dictionaries(st.text(max_size=8), st.one_of(arrays, st.text(max_size=8), st.integers(-99, 99), st.none())))
def test_what_is_packed_comes_out_the_same(message):
    found = unpack(pack(message))
    assert found.keys() == message.keys()
    for key, value in message.items():
        if isinstance(value, np.ndarray):
            assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)
            np.testing.assert_array_equal(found[key], value)
        else:
            assert found[key] == value


def test_the_bytes_are_those_of_openpi():
    assert pack({"a": np.array([1, 2], np.uint8)}) == msgpack.packb(
        {"a": {b"__ndarray__": True, b"data": b"\x01\x02", b"dtype": "|u1", b"shape": (2,)}}
    )
    assert unpack(msgpack.packb({b"__npgeneric__": True, b"data": 3, b"dtype": "<i8"})) == np.int64(3)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(data):
    with contextlib.suppress(ValueError):
        unpack(data)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({b"data": b"1234", b"dtype": "|O", b"shape": [1]}, "type '|O'"),
        ({b"data": b"12345678", b"dtype": "O8", b"shape": [1]}, "type 'O8'"),
        ({b"data": b"1234", b"dtype": "<f4", b"shape": [2]}, "comes with 4 bytes"),
        ({b"data": b"1234", b"dtype": "<f4", b"shape": [-1]}, "shape"),
        ({b"data": b"", b"dtype": "<f4", b"shape": [0] * 9}, "shape"),
        ({b"data": b"", b"dtype": "<f4", b"shape": [2**40, 0]}, "shape"),
        ({b"data": "1234", b"dtype": "<f4", b"shape": [1]}, "comes with no bytes"),
        ({b"data": b"1234", b"dtype": "<U1", b"shape": [1]}, "type"),
        ({b"data": b"1234", b"dtype": 7, b"shape": [1]}, "type 7"),
        ({b"data": b"1234", b"dtype": "f4,f4", b"shape": [1]}, "type"),
        ({}, "type None"),
    ],
)
def test_an_array_that_is_none_is_an_error(entry, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        unpack(msgpack.packb({b"__ndarray__": True, **entry}))


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["text"]), object(), {1, 2}])
def test_what_cannot_be_sent_says_so(value):
    with pytest.raises(ValueError, match="cannot be sent"):
        pack({"x": value})


def test_the_client_needs_numpy_websockets_and_msgpack_alone():
    tree = ast.parse(Path(client.__file__).read_text(encoding="utf-8"))
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 0 for node in froms)
    roots = {name.split(".")[0] for name in names | {node.module for node in froms}}
    assert roots - set(sys.stdlib_module_names) == {"numpy", "websockets", "msgpack"}


def test_a_server_that_is_not_there_says_so():
    with pytest.raises(ServerError, match="cannot connect to ws://127"):
        Client("ws://127.0.0.1:1", timeout=2)


def test_the_clients_distribution_is_one_small_file(tmp_path):
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    copy = tmp_path / "client"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "foreact_client.py"):
        (copy / name).write_bytes((ROOT / "client" / name).read_bytes())
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 100_000
    held = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert held == ["foreact_client.py"]
    assert zipfile.ZipFile(wheel).read("foreact_client.py") == Path(client.__file__).read_bytes()


@pytest.mark.slow
def test_the_client_works_in_an_empty_environment(tmp_path, serving, continuing):
    venv.create(tmp_path / "venv", with_pip=True)
    python, wheels = tmp_path / "venv" / "bin" / "python", tmp_path / "wheels"
    wheel = [python, "-m", "pip", "wheel", "-q", "-w", wheels, "-c", ROOT / "constraints.txt", ROOT / "client"]
    subprocess.run(wheel, check=True, timeout=300)
    sizes = {path.name: path.stat().st_size / 1e6 for path in wheels.iterdir()}
    assert sum(sizes.values()) < 25, sizes
    install = [python, "-m", "pip", "install", "-q", "--no-index", "--find-links", wheels, "foreact-client"]
    subprocess.run(install, check=True, timeout=300)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], check=True, capture_output=True, text=True
    )
    names = {line.split("==")[0].lower() for line in listed.stdout.split()}
    assert names - {"pip", "setuptools"} == {"foreact-client", "msgpack", "numpy", "websockets"}
    code = """
import sys
import numpy as np
from foreact_client import Client
picture = np.zeros((12, 12, 3), np.uint8)
picture[3, 3, 1] = 255
with Client(sys.argv[1]) as client:
    seen = {"images": {"main": picture}, "state": np.zeros(2), "instruction": "go"}
    print(client.infer(seen)["actions"].shape)
"""
    with serving(PolicyActor(policy=continuing(), batch_shape=2)) as server:
        command = [python, "-c", code, f"ws://127.0.0.1:{server.port}"]
        said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert said.stdout.strip() == "(6, 2)"
