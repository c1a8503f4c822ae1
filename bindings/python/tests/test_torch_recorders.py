# SPDX-License-Identifier: Apache-2.0
"""The loss where PyTorch compiles, records or transforms operations, and where tensors have no memory."""

import copy
import inspect

import pytest

torch = pytest.importorskip("torch")

from torch_cases import tensors  # noqa: E402

import negcos  # noqa: E402
from negcos.torch import NegativeCosineLoss, negative_cosine_loss  # noqa: E402

# What compiles


@pytest.mark.skipif(not hasattr(getattr(torch, "compiler", None), "disable"), reason="no torch.compiler.disable")
def test_compile():
    """One break of the graph: the towers before it and what follows are compiled, each once."""
    from torch._dynamo.testing import CompileCounter

    towers = [torch.nn.Linear(8, 6) for _ in range(2)]
    (given,) = tensors((12, 8), requires_grad=False)
    module = NegativeCosineLoss(rounds=3)
    for loss in (lambda q, d, step: module(q, d), lambda q, d, step: negative_cosine_loss(q, d, rounds=3, step=step)):
        counter = CompileCounter()

        def program(given, step):
            return loss(*(tower(given).relu() for tower in towers), step) * 2

        torch._dynamo.reset()
        compiled = torch.compile(program, backend=counter)

        def steps(program):
            module.step.zero_()
            for step in range(4):
                loss = program(given, torch.tensor(step).item())
                yield loss.item(), *torch.autograd.grad(loss, towers[0].weight)

        found, expected = list(steps(compiled)), list(steps(program))
        assert len({loss for loss, _ in found}) == 4
        for (loss, gradient), (expected_loss, expected_gradient) in zip(found, expected):
            assert loss == expected_loss and torch.equal(gradient, expected_gradient)
        assert counter.frame_count <= 4
    torch._dynamo.reset()
    queries, documents = tensors((12, 6), (12, 6))
    whole = torch.compile(NegativeCosineLoss(), backend="eager")
    assert whole(queries, documents).item() == negative_cosine_loss(queries, documents).item()


# What records or transforms operations


class Programs(torch.nn.Module):
    """The loss of a tower's output, and of tensors that are no inputs, by the module and by the function."""

    def __init__(self, *which):
        super().__init__()
        self.tower, self.loss, self.which = torch.nn.Linear(6, 6), NegativeCosineLoss(), which
        self.queries, self.documents = tensors((8, 6), (8, 6), requires_grad=False)

    def forward(self, given):
        if self.which == ("module",):
            return self.loss(self.tower(given), self.documents)
        if self.which == ("function",):
            return negative_cosine_loss(given, self.documents)
        return given.sum() * negative_cosine_loss(self.queries, self.documents)


def recorders():
    """name: what calls program(given)."""
    from torch.fx.experimental.proxy_tensor import make_fx

    func = torch.func if hasattr(torch, "func") else pytest.importorskip("functorch")
    found = {
        "jit.trace": lambda program, given: torch.jit.trace(program, given),
        "jit.trace_module": lambda program, given: torch.jit.trace_module(program, {"forward": given}),
        "symbolic_trace": lambda program, given: torch.fx.symbolic_trace(program),
        "make_fx": lambda program, given: make_fx(program)(given),
        "grad": lambda program, given: func.grad(program)(given),
        "vjp": lambda program, given: func.vjp(program, given),
        "jvp": lambda program, given: func.jvp(program, (given,), (given,)),
        "vmap": lambda program, given: func.vmap(program)(given.expand(2, 8, 6)),
        "functionalize": lambda program, given: func.functionalize(program)(given),
        "hessian": lambda program, given: func.hessian(program)(given),
    }
    if hasattr(func, "linearize"):
        found["linearize"] = lambda program, given: func.linearize(program, given)
        found["make_fx-before-dispatch"] = lambda program, given: make_fx(program, pre_dispatch=True)(given)
    if hasattr(torch, "export"):
        found["export"] = lambda program, given: torch.export.export(program, (given,), strict=False)
    return found


@pytest.mark.parametrize("which", ["module", "function", "constant"])
@pytest.mark.parametrize("name", recorders())
def test_recorders_are_refused(name, which):
    """What would keep the first loss for ever, or lose its gradients, is an error that says what to do instead."""
    program = Programs(which)
    given = program.queries.clone()
    with pytest.raises(negcos.UnsupportedError, match="the loss is called inside torch.*, which cannot see into it"):
        recorders()[name](program, given)
    assert int(program.loss.step) == 0
    program(given)  # nothing is left behind


def test_tensors_without_memory_are_refused():
    from torch._subclasses import FakeTensorMode

    queries, documents = tensors((8, 6), (8, 6), requires_grad=False)
    mode = FakeTensorMode()
    with mode:
        module = NegativeCosineLoss(scale=torch.nn.Parameter(torch.ones(())))
        fake = torch.ones(8, 6)
        with pytest.raises(negcos.UnsupportedError, match="inside a mode that makes a FakeTensor of every tensor"):
            negative_cosine_loss(fake, fake)
    for name in ("queries", "documents", "weights", "scale"):
        given = {"queries": queries, "documents": documents, name: fake}
        with pytest.raises(negcos.UnsupportedError, match=f"{name} is a FakeTensor, expected a tensor with its own"):
            negative_cosine_loss(**given)
    with pytest.raises(negcos.DtypeError, match="step is a FakeTensor, without a value"):
        module(queries, documents)


def test_modes_that_only_watch():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    class Embedding(torch.Tensor):
        pass

    queries, documents = tensors((8, 6), (8, 6))
    expected = negative_cosine_loss(queries, documents).item()
    with Watch():
        assert negative_cosine_loss(queries, documents).item() == expected
    assert negative_cosine_loss(queries.as_subclass(Embedding), documents).item() == expected
    if hasattr(torch, "func"):
        found = torch.func.functional_call(NegativeCosineLoss(), {"step": torch.tensor(4)}, (queries, documents))
        assert found.item() == negative_cosine_loss(queries, documents, step=4).item()


@pytest.mark.skipif(not hasattr(getattr(torch, "compiler", None), "disable"), reason="no torch.compiler.disable")
def test_whole_graphs_are_refused():
    """By torch.compile itself, which calls nothing; it says why where it can."""
    program, reason = Programs("module"), ""
    if "reason" in inspect.signature(torch.compiler.disable).parameters:
        reason = "negcos has no graph: trace, compile or transform the towers alone"
    for record in (
        lambda: torch.compile(program, fullgraph=True, backend="eager")(program.queries),
        lambda: torch.export.export(program, (program.queries,), strict=True),
    ):
        with pytest.raises(torch._dynamo.exc.Unsupported, match=reason):
            record()
    torch._dynamo.reset()


# Default devices and dtypes, and modules without memory


class EmptyWeights:
    """What accelerate.init_empty_weights(include_buffers=True) does to modules that are made meanwhile."""

    def __enter__(self):
        self.saved = torch.nn.Module.register_parameter, torch.nn.Module.register_buffer
        register_parameter, register_buffer = self.saved

        def parameter(module, name, value):
            register_parameter(module, name, value)
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(value.to("meta"), requires_grad=value.requires_grad)

        def buffer(module, name, value, persistent=True):
            register_buffer(module, name, value, persistent)
            if value is not None:
                module._buffers[name] = value.to("meta")

        torch.nn.Module.register_parameter, torch.nn.Module.register_buffer = parameter, buffer

    def __exit__(self, *failure):
        torch.nn.Module.register_parameter, torch.nn.Module.register_buffer = self.saved


def test_module_without_memory():
    """Made by init_empty_weights, it has a text but no loss, until it has memory and values."""
    queries, documents = tensors((8, 6), (8, 6))
    with EmptyWeights():
        module = NegativeCosineLoss(rounds=3, scale=torch.nn.Parameter(torch.tensor(7.0)))
    assert module.step.is_meta and module.scale.is_meta and "rounds=3" in repr(module)
    with pytest.raises(negcos.DtypeError, match="step is on meta, without a value"):
        module(queries, documents)
    with pytest.raises(negcos.DtypeError, match="scale is on meta, expected the CPU"):
        module(queries, documents, step=0)
    with pytest.raises(negcos.DtypeError, match="step is on meta, without a value"):
        negative_cosine_loss(queries, documents, step=module.step)
    expected = [negative_cosine_loss(queries, documents, rounds=3, scale=7.0, step=step).item() for step in (0, 5)]
    if "assign" in inspect.signature(module.load_state_dict).parameters:
        twin = copy.deepcopy(module)
        twin.load_state_dict({"step": torch.tensor(5), "scale": torch.tensor(7.0)}, assign=True)
        assert twin(queries, documents).item() == expected[1]
    module.to_empty(device="cpu")
    with torch.no_grad():
        module.scale.fill_(float("nan"))
        module.step.fill_(-1)
    with pytest.raises(ValueError, match="step is -1"):
        module(queries, documents)
    module.reset_parameters()
    loss = module(queries, documents)
    loss.backward()
    assert loss.item() == expected[0] and int(module.step) == 1 and module.scale.grad is not None


@pytest.mark.skipif(not hasattr(torch, "set_default_device"), reason="no torch.set_default_device")
def test_default_device_and_dtype():
    """step is a count, on the CPU; a learnt scale is where it was made."""
    queries, documents = tensors((8, 6), (8, 6), dtype=torch.float16)
    expected = [negative_cosine_loss(queries, documents, step=step).item() for step in range(2)]
    try:
        torch.set_default_dtype(torch.float16)
        for device in ("meta", "cuda"):
            torch.set_default_device(device)
            module = NegativeCosineLoss(outputs=("losses", "negatives"))
            found = []
            for _ in range(2):
                loss = module(queries, documents)
                loss.backward()
                found.append(loss.item())
            assert found == expected and module.step.device.type == "cpu"
        torch.set_default_device("meta")
        module = NegativeCosineLoss(scale=torch.nn.Parameter(torch.tensor(7.0)))
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    with pytest.raises(negcos.DtypeError, match="scale is on meta, expected the CPU"):
        module(queries, documents)
    module.to_empty(device="cpu")
    with pytest.raises(ValueError, match="scale was made on meta, without a number"):
        module.reset_parameters()
    module.load_state_dict({"step": torch.tensor(0), "scale": torch.tensor(20.0)})
    assert module(queries, documents).item() == expected[0]
