"""Data sets: built-in shapes, COCO- and VOC-format folders. Find, verify, generate. No torch, no MMDetection."""
