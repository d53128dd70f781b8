"""The official archives of COCO and VOC: fetched, checked, unpacked. Not: finding data that is there."""
