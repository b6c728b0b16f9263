"""Two processes that train as one: against one process with the whole batch, in processes that torchrun starts."""

import copy
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.backends.debugging import aot_eager
from torch.fx import GraphModule
from torch.nn.parallel import DistributedDataParallel

from roadseg import distributed, engine, losses, nets
from roadseg.distillation import DISTILLATIONS
from roadseg.distributed import SyncBatchNorm
from roadseg.nets.blocks import ConvNorm
from roadseg.scenes.augment import normalise
from roadseg.scenes.batches import Batches
from roadseg.scenes.plan import even
from roadseg.schedules import Schedule
from tests.test_engine import Scenes

fit_module, evaluate_module = (importlib.import_module(f"roadseg.engine.{name}") for name in ("fit", "evaluate"))
PROJECT = Path(__file__).resolve().parents[1]
CLASSES, STEPS, SIZE = 3, 20, (64, 96)
COMPARED = (*losses.LOSSES, *DISTILLATIONS, "boundary")
WATCHED = """import faulthandler, os, signal
faulthandler.dump_traceback_later(240 + 10 * int(os.environ["RANK"]), exit=True)
faulthandler.register(signal.SIGTERM, chain=True)
"""
"""First in a script for torchrun: one that hangs says where and ends, and so does the other, which torchrun ends."""
LOSS = "dice + weighted_cross_entropy + 0.5 * jaccard + 0.5 * focal + 0.5 * edge"


class Textured(Scenes):
    """Of equal pixels, convolutions make what differs in its last digit, and which is ENet's maximum is chance."""

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        super().__init__(count, size)
        noise = np.random.default_rng(2).integers(-30, 31, (*size, 3))
        self.pairs = [(np.clip(image + noise, 0, 255).astype(np.uint8), label) for image, label in self.pairs]


def learnt(network: str, dtype: torch.dtype, start: str, compiled: bool = False) -> dict[str, torch.Tensor]:
    """The network's logits of a scene after 20 steps, its loss and batch norm's statistics, all in `dtype`; from the
    weights that the file `start` holds, if any is named. Compiled: traced and differentiated as torch.compile does;
    what a compiler makes of it takes minutes."""
    graphs: list[GraphModule] = []

    def backend(graph: GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    with ExitStack() as patches:
        patches.enter_context(patch.object(torch, "compile", partial(torch.compile, backend=backend)))
        for module in (fit_module, evaluate_module):
            patches.enter_context(patch.object(module, "normalise", lambda images: normalise(images).to(dtype)))
        if dtype == torch.float64:  # what the loop and the losses round to float32
            patches.enter_context(patch.object(torch.Tensor, "float", torch.Tensor.double))
        found = _learnt(network, dtype, start, compiled)
    assert bool(graphs) == compiled
    return found


def _learnt(network: str, dtype: torch.dtype, start: str, compiled: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net = nets.build(network, CLASSES).to(dtype)
    if start:
        net.load_state_dict(torch.load(start))
    scenes = Textured(8, SIZE)
    training, last = train(net, scenes, "sgd(momentum=0.9)", 0.001, STEPS, compiled)
    matrices = engine.evaluate(training.ema.net, scenes, classes=CLASSES)  # type: ignore[arg-type]
    logits = logits_of(training.net, scenes)
    means = {name: value for name, value in training.net.state_dict().items() if "running" in name}
    return {"logits": logits, "loss": torch.tensor(last.loss), "matrices": torch.from_numpy(matrices), **means}


def logits_of(net: nn.Module, scenes: Textured) -> torch.Tensor:
    image = torch.from_numpy(scenes[0][0])[None].permute(0, 3, 1, 2)
    with torch.no_grad():
        logits: torch.Tensor = net.eval()(image.to(next(net.parameters()).dtype) / 255)
    return logits


def train(
    net: nn.Module, scenes: Textured, optimizer: str, rate: float, steps: int, compiled: bool = False
) -> tuple[engine.Training, engine.Report]:
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0  # each process draws its own
    for _, label in scenes.pairs[:3]:
        label[:, : SIZE[1] * 3 // 4] = 255  # so that processes have very different numbers of labelled pixels
    training = engine.start(
        net,
        loss=losses.build(LOSS, {"enet": [1.0, 3.0, 2.0]}),
        learning_rate=rate,
        weight_decay=5e-4,
        schedule=Schedule(lambda progress: 1 - progress),
        optimizer=optimizer,
        ema=0.9,
        precision="float32",
        channels_last=True,
        device="cpu",
        total_steps=steps,
        aux_weight=0.4,
        seed=3,
        compiled=compiled,
    )
    part = distributed.rank(), distributed.size()
    plan = even(steps, 4, SIZE)
    batches = Batches(scenes, plan, seed=training.seed, augmentation=None, part=part)  # type: ignore[arg-type]
    *_, last = engine.fit(training, batches, report_every=5)
    return training, last


def gradients(dtype: torch.dtype) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of each loss, its value and the gradient of a small network's first weights, in `dtype`."""
    found, part = {}, 4 // distributed.size()
    mine = slice(distributed.rank() * part, (distributed.rank() + 1) * part)
    with patch.object(torch.Tensor, "float", lambda tensor: tensor.to(dtype)):
        for name in COMPARED:
            torch.manual_seed(0)
            layers = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1)
            net = nn.Sequential(*layers).to(dtype)
            images, target = torch.randn(4, 3, 16, 24).to(dtype), torch.randint(0, 3, (4, 16, 24))
            target[:2, :12], target[3] = 255, 255
            forward: nn.Module = net
            if distributed.size() > 1:
                forward = DistributedDataParallel(distributed.synchronise(net), forward_sync_buffers=False)
            if name == "boundary":  # as STDC's training head is compared with the target
                value = losses.boundary(forward(images[mine])[:, :1], target[mine])
            elif name in DISTILLATIONS:
                teacher = torch.randn(4, 3, 16, 24).to(dtype)
                value = DISTILLATIONS[name](4.0)(forward(images[mine]), teacher[mine], target[mine])
            else:
                value = losses.build(name, {"enet": [1.0, 3.0, 2.0]})(forward(images[mine]), target[mine])
            value.backward()
            assert layers[0].weight.grad is not None
            found[name] = distributed.averaged(value.detach()), layers[0].weight.grad
    return found


def test_losses_and_their_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    """All but Lovász's, which sorts each process's pixels for themselves, as its documentation says. In float32 by the
    kernels where there are any."""
    (tmp_path / "run.py").write_text(
        f"{WATCHED}import torch\nfrom roadseg import distributed\nfrom tests.test_distributed import gradients\n"
        "with distributed.joined():\n"
        "    found = {dtype: gradients(dtype) for dtype in (torch.float32, torch.float64)}\n"
        "    torch.save(found, f'{distributed.rank()}.pt')\n"
    )
    done = torchrun("run.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-9000:]
    together = torch.load(tmp_path / "1.pt")
    for dtype, within in ((torch.float32, 2e-6), (torch.float64, 1e-12)):
        alone = gradients(dtype)
        for name in COMPARED:
            pairs = zip(together[dtype][name], alone[name], strict=True)
            same = all(torch.allclose(one, other, rtol=within, atol=within) for one, other in pairs)
            assert same == (name != "lovasz"), (name, dtype)


def torchrun(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # so it ends the two, or they run on beside the tests that follow
            _, said = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, stderr=said)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As each of several processes has, so that weights trained here are the same on each machine of a kind."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("network", "dtype", "within", "compiled"),
    [
        ("ddrnet23slim", torch.float32, 1e-4, False),
        ("fastscnn", torch.float32, 1e-4, False),
        ("enet", torch.float32, 1e-4, False),
        ("fcn", torch.float32, 1e-4, True),
        ("ddrnet23slim", torch.float64, 1e-8, False),
        ("fastscnn", torch.float64, 1e-8, False),
        ("enet", torch.float64, 1e-8, False),
    ],
)
def test_two_processes_are_one_with_the_whole_batch(
    tmp_path: Path, one_thread: None, network: str, dtype: torch.dtype, within: float, compiled: bool
) -> None:
    """Batch norm, auxiliary heads, class weights, and a number of labelled pixels that differs. In float32 the training
    of random weights blows up the last digits that a sum in another order changes (docs/results.md), so there both go
    on from weights that were trained before."""
    torch.manual_seed(0)
    net, start = nets.build(network, CLASSES), ""
    if dtype == torch.float32:
        train(net, Textured(8, SIZE), "adamw", 0.02, 200)
        start = str(tmp_path / "start.pt")
        torch.save(net.state_dict(), start)
    script = tmp_path / "run.py"
    script.write_text(
        f"{WATCHED}import torch\nfrom roadseg import distributed\nfrom tests.test_distributed import learnt\n"
        f"with distributed.joined():\n    result = learnt({network!r}, {dtype}, {start!r}, {compiled})\n"
        "    torch.save(result, f'{distributed.rank()}.pt')\n"
    )
    done = torchrun(str(script), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-9000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = learnt(network, dtype, start)
    assert (alone["logits"] - logits_of(net, Textured(8, SIZE))).abs().max() > 0.03, "these steps train"
    for name, value in alone.items():
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, msg=f"{name}: the processes differ")
        if name != "matrices":
            share = 0 if name == "logits" else within
            torch.testing.assert_close(
                first[name], value, rtol=share, atol=within, msg=f"{name}: not the whole batch's"
            )
    assert (first["matrices"].sum(dim=(1, 2)) == alone["matrices"].sum(dim=(1, 2))).all(), "every scene, once"


def in_parts(broken: bool) -> dict[str, torch.Tensor]:
    """The weights of a network without norms after 6 steps, each batch in two parts; `broken`: saved at the third, and
    gone on with by another."""

    def begin(weights: int) -> engine.Training:
        torch.manual_seed(weights)
        return engine.start(
            nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1)),
            loss=losses.build("cross_entropy", None),
            learning_rate=0.1,
            weight_decay=0.0,
            schedule=Schedule(lambda progress: 1 - progress),
            optimizer="sgd",
            ema=0.9,
            parts=2,
            precision="float32",
            channels_last=True,
            device="cpu",
            total_steps=6,
            seed=3,
        )

    def fit(training: engine.Training) -> Iterator[engine.Report]:
        part = distributed.rank(), distributed.size()
        batches = Batches(scenes, even(6, 4, SIZE), seed=3, augmentation=None, part=part)  # type: ignore[arg-type]
        return engine.fit(training, batches, report_every=3)

    scenes = Textured(8, SIZE)
    for number, (_, label) in enumerate(scenes.pairs):
        label[:, : 10 * number] = 255  # so that parts have very different numbers of labelled pixels
    training = begin(0)
    for _ in fit(training):
        if broken and training.step == 3:
            saved = copy.deepcopy(training.state())
            training = begin(1)
            training.load(saved)
            list(fit(training))
            break
    return training.net.state_dict()


def test_batches_in_parts_and_a_resumed_training_are_the_same_with_two_processes(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(
        f"{WATCHED}import torch\nfrom roadseg import distributed\nfrom tests.test_distributed import in_parts\n"
        "with distributed.joined():\n    found = [in_parts(broken) for broken in (False, True)]\n"
        "    torch.save(found, f'{distributed.rank()}.pt')\n"
    )
    done = torchrun("run.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-9000:]
    alone = in_parts(False)
    for whole, broken in (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)):
        for name, value in alone.items():
            assert torch.equal(broken[name], whole[name]), name
            torch.testing.assert_close(whole[name], value)


def test_alone_everything_is_as_it_was() -> None:
    assert (distributed.size(), distributed.rank(), distributed.launched()) == (1, 0, False)
    value = torch.ones(2, requires_grad=True)
    assert distributed.total(value) is value and distributed.averaged(value) is value
    assert distributed.agreed(True) and not distributed.agreed(False)
    matrices = np.eye(2, dtype=np.int64)
    assert distributed.added(matrices) is matrices
    with distributed.joined():
        assert distributed.size() == 1


def test_synchronised_batch_norm_is_torchs_own_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), ConvNorm(4, 4))
    x = torch.randn(2, 3, 8, 8)
    expected, names = net(x), list(net.state_dict())
    distributed.synchronise(net)
    assert type(net[1]) is type(net[3][1]) is SyncBatchNorm and list(net.state_dict()) == names
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("command", ["sys.exit(3 if os.environ['RANK'] == '1' else 0)", "pass"])
def test_of_processes_that_fail_the_first_ones_code_is_what_is_left(command: str) -> None:
    """And torchrun's report of thirty lines is not: each process says in one what is wrong."""
    command = f"import os, sys; {command}"
    call = f"import sys; from pipelines.train import multiply; sys.exit(multiply(2, ['-c', {command!r}]))"
    done = subprocess.run([sys.executable, "-c", call], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert done.returncode == (3 if "exit" in command else 0), done.stderr
    assert "Traceback" not in done.stderr and "failed" not in done.stderr


def test_a_process_that_a_signal_ended_is_named() -> None:
    command = "import os; os.environ['RANK'] == '1' and os.kill(os.getpid(), 9)"
    call = f"from pipelines.train import multiply; multiply(2, ['-c', {command!r}])"
    done = subprocess.run([sys.executable, "-c", call], cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert "process 2 of 2 was ended by signal 9, as a system does that is out of memory" in done.stderr
