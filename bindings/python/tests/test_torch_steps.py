# SPDX-License-Identifier: Apache-2.0
"""The module: its steps, state and copies; and programs that train with it."""

import copy
import pickle
import re
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_cases import tensors  # noqa: E402

import negcos  # noqa: E402
from negcos.torch import NegativeCosineLoss, negative_cosine_loss  # noqa: E402

# The module


def test_step():
    queries, documents = tensors((16, 6), (16, 6))
    module = NegativeCosineLoss(rounds=2, seed=1)
    assert module.training and dict(module.named_parameters()) == {}

    def at(step):
        return negative_cosine_loss(queries, documents, rounds=2, seed=1, step=step).item()

    def step_of(loss, *, backward=True):
        found = [step for step in range(9) if at(step) == loss.item()]
        if backward:
            loss.backward(retain_graph=True)
        return *found, int(module.step)

    assert [step_of(module(queries, documents)) for _ in range(3)] == [(0, 1), (1, 2), (2, 3)]
    losses = [module(queries, documents) for _ in range(3)]  # of one step, which ends once
    assert [step_of(loss) for loss in losses * 2] == [(3, 4)] * 6
    (sum(module(queries, documents) for _ in range(2)) * 2).backward()
    assert int(module.step) == 5
    torch.autograd.grad(module(queries, documents), documents)
    assert int(module.step) == 6
    module.eval()
    assert [step_of(module(queries, documents)) for _ in range(2)] == [(6, 6)] * 2
    module.train()
    with torch.no_grad():
        assert step_of(module(queries, documents), backward=False) == (6, 6)
    assert step_of(module(queries, documents.detach()), backward=False) == (6, 6)
    with pytest.raises(ValueError, match="columns"):
        module(queries, documents[:, :3])
    with pytest.raises(NotImplementedError, match="second derivative"):
        torch.autograd.grad(module(queries, documents), queries, create_graph=True)
    assert step_of(module(queries, documents)) == (6, 7)  # a call that failed was no step
    for given in (2, torch.tensor(2), torch.tensor([2], dtype=torch.int32), np.int64(2)):
        assert step_of(module(queries, documents, step=given)) == (2, 7)
    loss = module(queries, documents)
    module.step.fill_(1)  # whoever sets it between knows better
    assert step_of(loss) == (7, 1) and step_of(module(queries, documents)) == (1, 2)


def test_step_is_saved():
    """With the state, in the middle of a step, and whatever is done to the module's weights."""
    queries, documents = tensors((16, 6), (16, 6))
    module = NegativeCosineLoss(rounds=2)
    module(queries, documents).backward()
    loss = module(queries, documents)
    state = copy.deepcopy(module.state_dict())
    assert list(state) == ["step"] and int(state["step"]) == 1
    loss.backward()
    resumed = NegativeCosineLoss(rounds=2)
    resumed.load_state_dict(state)
    assert resumed(queries, documents).item() == loss.item()
    assert int(resumed.step) == 1 and int(module.half().step) == 2 and module.step.dtype == torch.int64


def checkpoints():
    """name: function(f, x), the value of f(x), which is computed again in the backward pass."""
    from torch.utils import checkpoint

    def of(use_reentrant):
        return lambda f, *given: checkpoint.checkpoint(f, *given, use_reentrant=use_reentrant)

    def whole(f, *given):  # computes all of f again, also what no gradient needs
        with checkpoint.set_checkpoint_early_stop(False):
            return of(False)(f, *given)

    ways = {"reentrant": of(True), "saved-tensors": of(False)}
    if hasattr(checkpoint, "set_checkpoint_early_stop"):
        ways["saved-tensors-without-early-stop"] = whole
    return ways


@pytest.mark.parametrize("way", checkpoints())
def test_checkpoint(way):
    """A loss that is computed again draws as before: losses, gradients and weights as without checkpoints."""
    checkpoint = checkpoints()[way]
    (given, other) = tensors((12, 8), (12, 8))

    def plain(f, *given):
        return f(*given)

    def train(wrap, form):
        torch.manual_seed(3)
        towers = torch.nn.ModuleList(torch.nn.Linear(8, 6) for _ in range(2))
        module = NegativeCosineLoss(rounds=3, scale=torch.nn.Parameter(torch.tensor(20.0)))
        optimizer = torch.optim.SGD([*towers.parameters(), *module.parameters()], lr=0.1)
        curve = []

        def loss(x):
            return module(towers[0](x), towers[1](x))

        for _ in range(4):
            optimizer.zero_grad()
            if form == "loss":
                total = wrap(loss, given)
                total.backward()
            elif form == "two-of-a-step":
                total = wrap(loss, given) * 2 + wrap(loss, other)
                total.backward()
            elif form == "nested":
                total = wrap(lambda x: wrap(loss, x) + wrap(loss, other), given)
                total.backward()
            elif form == "accumulated":
                for total in (wrap(loss, x) for x in (given, other)):
                    total.backward()
            elif form == "weighted":  # by what saves tensors after the loss
                total = wrap(lambda x: loss(x) * x.mean().exp(), given)
                total.backward()
            elif form == "evaluated":  # between the two passes
                total = wrap(loss, given)
                with torch.no_grad():
                    module.eval()(given, other)
                module.train()
                total.backward()
            else:
                total = wrap(lambda x: module(towers[0](x), towers[1](x), step=2**63 + len(curve)), given)
                total.backward()
            optimizer.step()
            curve.append(total.item())
        weights = [parameter.detach() for parameter in (*towers.parameters(), module.scale)]
        return curve, weights, int(module.step)

    for form in ("loss", "two-of-a-step", "nested", "accumulated", "weighted", "evaluated", "counted"):
        (curve, weights, step), (expected, expected_weights, _) = train(checkpoint, form), train(plain, form)
        assert curve == expected and len(set(curve)) == 4, form
        for ours, theirs in zip(weights, expected_weights):
            assert torch.equal(ours, theirs), form
        assert step == {"accumulated": 8, "counted": 0}.get(form, 4), form


def test_other_step_of_a_checkpoint():
    """Gradients of other negatives than the loss's are an error: with a counter of one's own, and batches in flight."""
    queries, documents = tensors((12, 6), (12, 6))
    checkpoint = checkpoints()["saved-tensors"]
    counter = [3]
    loss = checkpoint(lambda q: negative_cosine_loss(q.sin(), documents, step=counter[0]), queries)
    counter[0] = 2**40
    with pytest.raises(ValueError, match=f"step is {2**40} where the loss is computed again .*, expected 3"):
        loss.backward()

    module = NegativeCosineLoss()
    first, second = (checkpoint(lambda q: module(q.sin(), documents), queries) for _ in range(2))
    first.backward()
    module(queries, documents)
    with pytest.raises(ValueError, match="step is 1 where the loss is computed again .*, expected 0"):
        second.backward()


def test_closures():
    """An optimizer that evaluates several times a step: the same negatives by step=."""
    torch.manual_seed(2)
    towers = torch.nn.ModuleList(torch.nn.Linear(8, 6) for _ in range(2))
    (given,) = tensors((12, 8), requires_grad=False)
    module = NegativeCosineLoss(rounds=3, outputs="negatives")
    optimizer = torch.optim.LBFGS(towers.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    for step in range(3):
        drawn = []

        def closure():
            optimizer.zero_grad()
            loss = module(towers[0](given), towers[1](given), step=step)
            loss.backward()
            drawn.append(module.result.negatives.numpy())
            return loss

        optimizer.step(closure)
        assert len(drawn) > 2 and int(module.step) == 0
        for negatives in drawn:
            np.testing.assert_array_equal(negatives, negcos.sample(12, 3, step=step))


def test_parameters():
    """scale and bias as nn.Parameter are in state_dict(), learn, and keep their dtype."""
    scale, bias = torch.nn.Parameter(torch.tensor([10.0])), torch.nn.Parameter(torch.tensor(-10.0, dtype=torch.float64))
    module = NegativeCosineLoss(objective="sigmoid", sampling="all", scale=scale, bias=bias)
    assert set(module.state_dict()) == {"scale", "bias", "step"} and len(list(module.parameters())) == 2
    queries, documents = tensors((16, 6), (16, 6))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = module(queries, documents)
    before.backward()
    assert scale.grad.shape == (1,) and scale.grad.dtype == torch.float32 and bias.grad.dtype == torch.float64
    assert scale.grad.item() == pytest.approx(module.result.grad_scale, rel=1e-6)
    assert bias.grad.item() == module.result.grad_bias
    optimizer.step()
    assert scale.item() != 10 and bias.item() != -10
    assert module(queries, documents).item() < before.item()


def test_copies():
    queries, documents = tensors((16, 6), (16, 6))
    module = NegativeCosineLoss(
        rounds=3, exclude=(name for name in ("same-document-id",)), scale=torch.nn.Parameter(torch.tensor(9.0))
    )
    ids = torch.arange(16) % 5
    module(queries, documents, document_ids=ids).backward()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.scale is not module.scale and twin.step is not module.step and int(twin.step) == 1
        loss, expected = (one(queries, documents, document_ids=ids) for one in (twin, module))
        assert loss.item() == expected.item()
        loss.backward()
        assert int(twin.step) == 2 and int(module.step) == 1
    older = copy.deepcopy(module)
    del older.hardness  # as if pickled before there was such an option
    assert older(queries, documents, document_ids=ids).item() == expected.item() and repr(older) == repr(module)
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.deepcopy(NegativeCosineLoss(context=negcos.Context(threads=1)))


def test_repr_and_attributes():
    shown = "NegativeCosineLoss(objective='softmax', sampling='shuffle', rounds=4, scale=20.0)"
    assert repr(NegativeCosineLoss()) == shown
    learns = torch.nn.Parameter(torch.ones(()))  # which the state shows
    module = NegativeCosineLoss(sampling="all", direction="both", exclude="same-query-id", scale=learns)
    shown = "objective='softmax', sampling='all', direction='both', rounds=4, exclude=('same-query-id',)"
    assert repr(module) == f"NegativeCosineLoss({shown})"
    module = NegativeCosineLoss(7, temperature=0.5, prefix_dims=[3, 6])
    shown = "objective='softmax', sampling='shuffle', rounds=7, scale=20.0, temperature=0.5, prefix_dims=(3, 6)"
    assert repr(module) == f"NegativeCosineLoss({shown})"
    queries, documents = tensors((8, 6), (8, 6))
    module.temperature, module.prefix_dims = 2.0, ()  # a schedule
    assert (
        module(queries, documents).item() == negative_cosine_loss(queries, documents, rounds=7, temperature=2.0).item()
    )


def test_context():
    queries, documents = tensors((8, 6), (8, 6))
    with negcos.Context(threads=1, isa="scalar") as context:
        found = [
            negative_cosine_loss(queries, documents, context=context),
            NegativeCosineLoss(context=context)(queries, documents),
        ]
    expected = negative_cosine_loss(queries, documents).item()
    assert [loss.item() for loss in found] == [expected, expected]
    with pytest.raises(ValueError, match="context is closed"):
        negative_cosine_loss(queries, documents, context=context)


# In PyTorch programs


def test_autocast():
    """The towers' bfloat16 goes in as it is; a mixture is an error that names the tensor."""
    towers = [torch.nn.Linear(8, 6) for _ in range(2)]
    (given,) = tensors((12, 8), requires_grad=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        queries, documents = (tower(given) for tower in towers)
        assert queries.dtype == torch.bfloat16
        loss = negative_cosine_loss(queries, documents)
        with pytest.raises(TypeError, match="documents is of float32, expected the queries' bfloat16"):
            negative_cosine_loss(queries, documents.float())
    loss.backward()
    assert loss.dtype == torch.float32
    for tower in towers:
        assert tower.weight.grad.dtype == torch.float32 and bool(tower.weight.grad.abs().max() > 0)


def test_threads():
    """A thread each, losses and gradients as from one thread."""
    inputs = [tensors((64, 16), (64, 16), seed=seed) for seed in range(4)]
    expected = [torch.autograd.grad(negative_cosine_loss(*pair, step=step), pair) for step, pair in enumerate(inputs)]
    found = {}

    def work(step):
        for _ in range(20):
            found[step] = torch.autograd.grad(negative_cosine_loss(*inputs[step], step=step), inputs[step])

    threads = [threading.Thread(target=work, args=(step,)) for step in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step, gradients_ in enumerate(expected):
        for ours, theirs in zip(found[step], gradients_):
            assert bool((ours == theirs).all())


class Losses(torch.utils.data.Dataset):
    """Items that a worker computes with the library."""

    def __len__(self):
        return 8

    def __getitem__(self, step):
        queries, documents = tensors((300, 16), (300, 16), seed=step, requires_grad=False)
        return negative_cosine_loss(queries, documents, step=step, rounds=20)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers(start):
    """Before, in and after workers: the parent's threads are not theirs."""
    expected = torch.stack([Losses()[step] for step in range(8)])
    loader = torch.utils.data.DataLoader(
        Losses(), batch_size=4, num_workers=2, multiprocessing_context=start, timeout=60
    )
    for _ in range(2 if start == "fork" else 1):
        assert bool((torch.cat(list(loader)) == expected).all())
    assert bool((torch.stack([Losses()[step] for step in range(8)]) == expected).all())


def test_threads_of_pytorch():
    """The loss follows their number, with the same bits; the child of a fork, where they are gone, does without."""
    said = run(
        "-c",
        """
import os, torch, negcos.torch
torch.manual_seed(0)
queries, documents = torch.rand(2, 2000, 64)
compute = lambda: negcos.torch.negative_cosine_loss(queries, documents, rounds=20).item()
losses = []
for threads in (2, 1, 2):
    torch.set_num_threads(threads)
    torch.rand(1024, 1024).exp().sum()
    child = os.fork()
    if child == 0:
        os._exit(0 if {compute(), *losses[:1]} == {losses[0] if losses else compute()} else 1)
    assert os.waitpid(child, 0)[1] == 0
    losses.append(compute())
    assert threads == 1 or negcos.torch._own_context().threads <= threads
assert len(set(losses)) == 1
""",
    )
    assert not said


# README and example


def run(*arguments):
    said = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_readme(source_root, tmp_path):
    text = "".join(path.read_text() for path in sorted((source_root / "bindings/python").glob("README*.md")))
    found = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", text, re.S | re.M)]
    blocks = [block for block in found if "import torch" in block]
    assert len(blocks) == 2
    script = tmp_path / "readme_torch.py"
    script.write_text("\n".join(blocks))
    losses = [float(loss) for loss in re.findall(r"^loss ([0-9.]+), accuracy [0-9.]+$", run(str(script)), re.M)]
    assert len(losses) == 3 and losses[2] < losses[0]


def test_example(source_root):
    said = run(str(source_root / "bindings/python/examples/two_tower_torch.py"))
    before, after = (float(re.search(rf"^Recall@10 {when} ([0-9.]+)$", said, re.M)[1]) for when in ("before", "after"))
    assert before < 0.02 and after > 0.4
