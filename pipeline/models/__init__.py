"""Networks: encoder, context within the image and feature memory, joined in `segmentor.Segmentor`.

Start reading at `memory.FeatureMemory` (what the paper adds), then `memory_update` (how it learns without gradients).
"""

from pipeline.models.memory import FeatureMemory
from pipeline.models.segmentor import Segmentor, SegmentorOutput, build_segmentor, load_segmentor, start_from

__all__ = ["FeatureMemory", "Segmentor", "SegmentorOutput", "build_segmentor", "load_segmentor", "start_from"]
