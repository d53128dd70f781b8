"""The built-in data set: drawn from a few parameters, written in COCO or VOC format. Not: other data sets."""
