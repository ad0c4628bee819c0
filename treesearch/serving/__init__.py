"""A trained layer in other programs: `torch.export` and ONNX, with fixed shapes but for the batch."""

from treesearch.serving.export import export_onnx, export_program
from treesearch.serving.modules import BeamModule, ScoringModule, beam_module, scoring_module

__all__ = ["BeamModule", "ScoringModule", "beam_module", "export_onnx", "export_program", "scoring_module"]
