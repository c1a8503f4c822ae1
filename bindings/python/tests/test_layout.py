# SPDX-License-Identifier: Apache-2.0
"""The declarations of _library.py are those of negcos.h, as capi/negcos.layout records them."""

import ctypes
import inspect
import math

import pytest

import negcos
from negcos import _library

KINDS = {
    ctypes.c_uint32: "u32",
    ctypes.c_int32: "i32",
    ctypes.c_uint64: "u64",
    ctypes.c_int64: "i64",
    ctypes.c_double: "f64",
}


def kind_of(kind):
    if kind is _library.Matrix:
        return {"negcos_matrix", "negcos_const_matrix"}
    return {KINDS.get(kind, "pointer")}


@pytest.fixture(scope="module")
def facts(source_root):
    lines = (source_root / "capi/negcos.layout").read_text().splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def test_structs(facts):
    sizes = {name: int(size) for what, name, *rest in facts if what == "struct" for size in rest}
    assert sizes == {name: ctypes.sizeof(struct) for name, struct in _library.STRUCTS.items()}


def test_fields(facts):
    recorded = [fact[1:] for fact in facts if fact[0] == "field"]
    for struct, name, offset, size, kind in recorded:
        field = getattr(_library.STRUCTS[struct], name)
        assert (field.offset, field.size) == (int(offset), int(size)), (struct, name)
        assert kind in kind_of(dict(_library.STRUCTS[struct]._fields_)[name]), (struct, name)
    declared = [(struct, name) for struct, made in _library.STRUCTS.items() for name, _ in made._fields_]
    assert [(struct, name) for struct, name, *_ in recorded] == declared


def test_constants(facts):
    recorded = {fact[1]: int(fact[2]) for fact in facts if fact[0] == "constant"}
    version = {name: recorded.pop(name) for name in list(recorded) if name.startswith("NEGCOS_VERSION_")}
    declared = {
        f"NEGCOS_{group}_{name.upper().replace('-', '_')}": value
        for group, names in _library.ENUMERATORS.items()
        for name, value in names.items()
    }
    assert declared == recorded
    assert not version or tuple(version.values()) == negcos.version()


def test_functions(facts):
    assert {fact[1] for fact in facts if fact[0] == "function"} == set(_library.FUNCTIONS)
    for name in _library.FUNCTIONS:
        assert hasattr(_library.library, name)


def test_defaults_are_the_librarys():
    for name, status in _library.ENUMERATORS["STATUS"].items():
        assert _library.library.negcos_status_string(status).decode() == name.replace("-", " ")
    options = _library.initialised("negcos_options")
    parameters = inspect.signature(negcos.evaluate).parameters
    for name, _kind in _library.Options._fields_:
        if name in ("struct_size", "prefix_count"):
            continue
        default = parameters[name].default
        if name.upper() in _library.ENUMERATORS and name != "exclude":
            default = _library.ENUMERATORS[name.upper()][default]
        if name in ("exclude", "prefix_dims", "prefix_weights"):
            assert not default and not getattr(options, name)
        else:
            assert default == getattr(options, name), name
    assert options.false_negative_margin == math.inf
    frequency = _library.initialised("negcos_frequency_options")
    parameters = inspect.signature(negcos.Frequency).parameters
    assert _library.ENUMERATORS["FREQUENCY"][parameters["method"].default] == frequency.method
    for name in ("hashes", "buckets", "learning_rate", "initial_gap", "seed"):
        assert parameters[name].default == getattr(frequency, name), name
    parameters = inspect.signature(negcos.sample).parameters
    assert (parameters["rounds"].default, parameters["sampling"].default) == (options.rounds, "shuffle")
