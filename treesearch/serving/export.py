"""`torch.export` programs and ONNX files of serving modules. Neither needs treesearch, nor the tree, to run."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from treesearch.errors import ConfigError, MissingExtraError
from treesearch.serving.modules import ServingModule

INPUT_NAME = "input"
EXAMPLES = 3  # of the traced batch: neither 0 nor 1, which compilers take for constants


def export_program(module: ServingModule) -> ExportedProgram:
    """The module as one graph with a batch of any size; `torch.export.save` writes it, ``program.module()`` runs it.

    Parameters are copied when it is saved. It runs on the device on which the layer was.

    Args:
        module: From `scoring_module` or `beam_module`.
    """
    example = torch.zeros(EXAMPLES, module.in_features, dtype=module.dtype, device=module.device)
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes={INPUT_NAME: {0: Dim("batch", min=0)}})


def export_onnx(module: ServingModule, path: str | Path, *, external_data: bool | None = None) -> None:
    """Write the module as ONNX: ``input`` [batch, D], outputs named by ``module.output_names``, any batch size.

    The metadata of the model hold ``treesearch.tree_hash``. An existing file is replaced whole; of two files, the one
    with the parameters first. Torch's exporter takes seconds, and some tenths of a second more for each level of a
    deep tree.

    Args:
        module: From `scoring_module` or `beam_module`.
        path: Ends in ``.onnx``.
        external_data: Whether parameters go into a second file beside it, ``NAME.onnx.data``, which must travel with
            the first; None: only above 1.5 GB, since an ONNX file holds 2 GB at most.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed (extra ``serve``).
        ConfigError: The path does not end in ``.onnx``.
        OSError: It cannot be written.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "serve")
    path = Path(path)
    if path.suffix != ".onnx":
        raise ConfigError(f"an ONNX file must end in .onnx, but got {path.name!r}")
    # The model names the file of its parameters: both are written under their own names and then moved, the model last.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        _translated(module).save(Path(folder) / path.name, external_data=external_data)
        for written in sorted(Path(folder).iterdir(), reverse=True):
            os.replace(written, path.parent / written.name)


def _translated(module: ServingModule) -> torch.onnx.ONNXProgram:
    with _quiet():
        program = torch.onnx.export(
            export_program(module),
            input_names=[INPUT_NAME],
            output_names=list(module.output_names),
            dynamic_shapes={INPUT_NAME: {0: "batch"}},  # the program has it already; here it gets its name
            custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        _forget_origin(node)
    program.model.metadata_props["treesearch.tree_hash"] = module.tree_hash
    return program


def _log_sigmoid(values: Any) -> Any:
    """``log(sigmoid(x))`` as ``-softplus(-x)``: in torch's own translation the sigmoid becomes 0 below x = -104."""
    from onnxscript import opset18

    return opset18.Neg(opset18.Softplus(opset18.Neg(values)))


def _forget_origin(node: Any) -> None:
    """Drop the stack trace, with the paths of this machine, that the exporter hangs on every node and its outputs."""
    node.metadata_props.clear()
    for output in node.outputs:
        output.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of operators and constants that we do not use."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch's exporter copies one of torch's own deprecated classes.
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
