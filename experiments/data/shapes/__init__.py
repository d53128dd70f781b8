"""The built-in data set: drawn from a handful of parameters, written in COCO or VOC format."""
