"""What a runtime is to the rest: a module with these names, one file a runtime.

The measuring worker imports those files under other interpreters, without this package: each of them keeps to
the standard library, numpy and, inside functions, its runtime, in the syntax of Python 3.8.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self

from numpy.typing import NDArray


class CompiledModel(Protocol):
    """A network ready to run; a context manager that gives the runtime's memory and threads back."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs for one batch of C-contiguous inputs, both in the model's order."""

    def input_specs(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape with the batch and numpy type name of every input."""

    def layer_times(self) -> dict[str, float] | None:
        """Median seconds of every executed node over the runs so far; read it once, after the last run.

        What a runtime fused into a convolution or a matrix product is credited to that layer, under its ONNX
        node name; every other node stands for itself. None where the runtime has no honest counters, or
        profiling was not asked for.
        """

    def operation_times(self) -> dict[str, float] | None:
        """Median seconds of every kind of kernel that was executed, such as ``Reorder``; read it after `layer_times`.

        A reference kernel's name, such as ``ref_any_FP32``, stands behind its kind in parentheses.

        None where `layer_times` is.
        """

    def kernels(self) -> list[str] | None:
        """What the kernels that ran call themselves, instruction set included; read it after `layer_times`.

        None where the runtime does not tell, or profiling was not asked for.
        """

    def supported_fraction(self) -> float | None:
        """Fraction of the operations that the runtime's own kernels compute, where it tells."""


class Runtime(Protocol):
    """A module that compiles ONNX files for this CPU."""

    NAME: str
    FAMILIES: tuple[str, ...]
    ISA_LIMITS: dict[str, dict[str, str]]
    """Instruction set that it can be kept to → the environment that does it, from before the runtime is imported."""

    def versions(self) -> dict[str, str]:
        """Package → version of everything that computes."""

    def compile(
        self, model_path: str, threads: int, batch_size: int, precision: str = "fp32", profile: bool = False
    ) -> CompiledModel:
        """Compile an ONNX file.

        Args:
            model_path: the file.
            threads: number of threads that compute, one a core.
            batch_size: samples of one run; takes the place of a dynamic first dimension.
            precision: of the arithmetic, one that the runtime has.
            profile: count the time of every node, which costs some time itself.

        Raises:
            ValueError: a precision or a shape that the runtime does not have.
        """

    def kernel_support(self, model_path: str, threads: int, batch_size: int) -> tuple[float | None, list[str]]:
        """Fraction of an ONNX file's operations that fast kernels compute, and the others, with node and reason.

        None and nothing where the runtime does not tell. To be called in a process that has not used it before.
        """
