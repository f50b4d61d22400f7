"""Adapters of the user's own, found by ``package.module:factory``."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.models.base import ModelAdapter
from targets.errors import ConfigError

_PATTERN = "package.module:factory"


def is_own(name: str) -> bool:
    """Whether ``name`` has the form of a Python function's place: ``package.module:factory``."""
    module, separator, factory = name.partition(":")
    return bool(separator) and factory.isidentifier() and all(part.isidentifier() for part in module.split("."))


def own_adapter(name: str) -> ModelAdapter:
    """What the user's factory gives, once it has everything that an adapter needs.

    The module is imported, and the function called, because the user named them; the working directory is searched
    after everything that is installed.

    Args:
        name: ``package.module:factory``.

    Raises:
        ConfigError: there is no such function, it fails, or what it gives lacks something of an adapter.
    """
    factory = _factory(name)
    try:
        adapter = factory()
    except Exception as error:
        raise ConfigError(f"--model {name}: {factory.__name__}() failed: {type(error).__name__}: {error}") from error
    missing = [text for member, text in _members().items() if not _has(adapter, member)]
    if missing:
        raise ConfigError(
            f"--model {name}: {factory.__name__}() gives a {type(adapter).__name__} that is no adapter yet. It lacks:\n"
            + "\n".join(f"  {text}" for text in missing)
            + "\ndocs/your-model.md walks through one."
        )
    return adapter  # type: ignore[no-any-return]


def _factory(name: str) -> Callable[[], Any]:
    module_name, _, function = name.partition(":")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's module raises
        raise ConfigError(
            f"--model {name}: {module_name} cannot be imported ({type(error).__name__}: {error}). Give {_PATTERN} of a "
            "module that is installed or lies in the working directory, or see `pipeline models list`."
        ) from error
    factory = getattr(module, function, None)
    if not callable(factory):
        functions = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ConfigError(f"--model {name}: {module_name} has no function {function}, only {', '.join(functions[:8])}.")
    return factory  # type: ignore[no-any-return]


def _members() -> dict[str, str]:
    """What an adapter has, each with what it must be or return."""
    described = {field: f"{field}: {_short(kind)}" for field, kind in ModelAdapter.__annotations__.items()}
    for method, function in vars(ModelAdapter).items():
        if inspect.isfunction(function) and function.__doc__ and not method.startswith("_"):
            signature = inspect.signature(function)
            arguments = ", ".join(list(signature.parameters)[1:])
            said = " ".join(function.__doc__.split("\n\n")[0].split())
            described[method] = f"{method}({arguments}) → {_short(signature.return_annotation)}: {said}"
    return described


def _has(adapter: Any, member: str) -> bool:
    value = getattr(adapter, member, None)
    if member in ModelAdapter.__annotations__:
        return value is not None
    return callable(value) and getattr(value, "__func__", value) is not vars(ModelAdapter)[member]  # inherited: a stub


def _short(kind: Any) -> str:
    """A type without the modules that it is from."""
    name = re.sub(r"\b(?:\w+\.)+(\w)", r"\1", inspect.formatannotation(kind))
    return re.sub(r"ndarray\[tuple\[Any, \.\.\.\], dtype\[\w+\]\]", "array", name)
