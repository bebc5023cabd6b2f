"""The gateway over real gRPC, with a server and a client of our own in two processes, as in the competition's rerun."""

import io
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import pytest

from bfrbctl.artefacts.folders import Folder
from bfrbctl.prediction import gateway as kaggle
from bfrbctl.prediction.predictor import Predictor

ROOT = Path(__file__).parent.parent.parent
METHOD = "/gateway/predict"
STOP = "/gateway/stop"

# In place of the competition's package: frames come as Arrow files one after the other, the gesture goes back as text.
SERVER = """
import io
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import polars as pl


class CMIInferenceServer:
    def __init__(self, *listeners):
        self.listeners = {listener.__name__: listener for listener in listeners}
        self.stopped = threading.Event()

    def _answer(self, request, context):
        frames = []
        while request:
            (size,) = struct.unpack(">Q", request[:8])
            frames.append(pl.read_ipc(io.BytesIO(request[8 : 8 + size])))
            request = request[8 + size :]
        return self.listeners["predict"](*frames).encode()

    def _stop(self, request, context):
        self.stopped.set()
        return b""

    def serve(self):
        names = {"predict": self._answer, "stop": self._stop}
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in names.items()}
        server = grpc.server(ThreadPoolExecutor(max_workers=1), options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gateway", handlers),))
        server.add_insecure_port("127.0.0.1:" + os.environ["GATEWAY_PORT"])
        server.start()
        self.stopped.wait()
        server.stop(grace=5).wait()
"""

SCRIPT = """
import sys
from bfrbctl.prediction import gateway as kaggle
from bfrbctl.models import interface
interface.KINDS["toy"] = "tests.toy_model"
kaggle.serve(sys.argv[1])
"""


def message(*frames: pl.DataFrame) -> bytes:
    parts = []
    for frame in frames:
        buffer = io.BytesIO()
        frame.write_ipc(buffer)
        parts.append(struct.pack(">Q", buffer.tell()) + buffer.getvalue())
    return b"".join(parts)


@pytest.fixture
def channel(blend_folder: Folder, tmp_path: Path) -> Iterator[grpc.Channel]:
    """Start `kaggle.serve` in another process as the rerun does, and connect to it."""
    (tmp_path / "kaggle_evaluation").mkdir()
    (tmp_path / "kaggle_evaluation" / "__init__.py").touch()
    (tmp_path / "kaggle_evaluation" / "cmi_inference_server.py").write_text(SERVER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, tmp_path))),
        "GATEWAY_PORT": str(port),
        kaggle.RERUN: "1",
        "no_proxy": "127.0.0.1",
    }
    words = [sys.executable, "-c", SCRIPT, str(blend_folder.path)]
    with subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        options = (("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", -1))
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as opened:
            try:
                grpc.channel_ready_future(opened).result(timeout=120)
                yield opened
                opened.unary_unary(STOP)(b"")
                assert server.wait(timeout=60) == 0
            finally:
                server.kill()


@pytest.mark.slow
def test_answers_over_grpc_in_any_order_are_those_of_the_batch(
    channel: grpc.Channel, blend_folder: Folder, raw_folder: Path
) -> None:
    test, subjects = (pl.read_csv(raw_folder / name) for name in ("test.csv", "test_demographics.csv"))
    expected = Predictor.open(blend_folder.path).predict_many(test, subjects)
    assert len(set(expected.values())) > 1
    ask = channel.unary_unary(METHOD)
    names = np.random.default_rng(5).permutation(sorted(expected)).tolist()
    given = {}
    for name in names:
        sequence = test.filter(pl.col("sequence_id") == name)
        subject = subjects.filter(pl.col("subject") == sequence["subject"][0])
        given[name] = ask(message(sequence, subject), timeout=60).decode()
    assert given == expected


@pytest.mark.slow
def test_a_sequence_without_acceleration_is_answered_over_grpc(
    channel: grpc.Channel, blend_folder: Folder, raw_folder: Path
) -> None:
    test, subjects = (pl.read_csv(raw_folder / name) for name in ("test.csv", "test_demographics.csv"))
    sequence = test.filter(pl.col("sequence_id") == test["sequence_id"][0])
    ask = channel.unary_unary(METHOD)
    for broken in (sequence.drop("acc_x"), sequence.head(0), sequence.with_columns(acc_x=pl.lit("x"))):
        gesture = ask(message(broken, subjects.head(0)), timeout=60).decode()
        assert gesture in blend_folder.content["classes"]
